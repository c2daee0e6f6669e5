// What node's pg does with a server of PostgreSQL's protocol that holds the table shop.orders.
//
//     node node.js PORT USER PASSWORD DATABASE      (NODE_PATH leads to pg and pg-cursor)
//
// Prints the rows of the table as the client reads them, for a comparison with the source, and ends with an error where
// the client does not get what PostgreSQL gives it.
"use strict";
const assert = require("node:assert");
const { Client, Pool, types } = require("pg");
const Cursor = require("pg-cursor");

const [port, user, password, database] = process.argv.slice(2);
const place = { host: "127.0.0.1", port: Number(port), user, password, database, connectionTimeoutMillis: 60_000 };
const ALL = "SELECT id, customer_id, total, status, day, raw FROM shop.orders ORDER BY id";
// As text, not as a moment of this machine's time zone.
types.setTypeParser(types.builtins.DATE, (text) => text);

async function refused(work, code) {
  await assert.rejects(work, (error) => {
    assert.strictEqual(error.code, code, `${error.code}: ${error.message}`);
    return true;
  });
}

async function main() {
  const client = new Client(place);
  await client.connect();
  const all = await client.query(ALL);
  assert.deepStrictEqual(all.fields.map((field) => field.name), ["id", "customer_id", "total", "status", "day", "raw"]);
  for (const row of all.rows) {
    const cells = [row.id, row.customer_id, row.total, row.status, row.day, row.raw && row.raw.toString("hex").toUpperCase()];
    console.log(cells.map((cell) => (cell === null ? "NULL" : cell)).join("|"));
  }
  const ids = all.rows.map((row) => row.id);
  const first = await client.query("SELECT count(*) FROM shop.orders WHERE id = $1", [ids[0]]);
  assert.deepStrictEqual(first.rows, [{ count: "1" }]);
  const some = await client.query("SELECT id FROM shop.orders WHERE id = ANY($1::int8[]) ORDER BY id", [ids.slice(0, 3)]);
  assert.deepStrictEqual(some.rows.map((row) => row.id), ids.slice(0, 3));
  const untyped = await client.query("SELECT id FROM shop.orders WHERE id = ANY($1) ORDER BY id", [ids.slice(0, 3)]);
  assert.deepStrictEqual(untyped.rows.map((row) => row.id), ids.slice(0, 3));
  for (const id of ids.slice(0, 4)) {
    const found = await client.query({ name: "by id", text: "SELECT total FROM shop.orders WHERE id = $1", values: [id] });
    assert.strictEqual(found.rows[0].total, all.rows.find((row) => row.id === id).total);
  }
  // Several statements in a text, as a simple query.
  const two = await client.query("SELECT 1 AS a; SELECT 2 AS b");
  assert.deepStrictEqual(two.map((result) => result.rows.map((row) => Number(Object.values(row)[0]))), [[1], [2]]);
  const cursor = client.query(new Cursor(ALL));
  const seen = [];
  for (let rows = await cursor.read(3); rows.length > 0; rows = await cursor.read(3)) {
    seen.push(...rows.map((row) => row.id));
  }
  await cursor.close();
  assert.deepStrictEqual(seen, ids);
  await refused(client.query("SELECT * FROM shop.nothing_like_it"), "42P01");
  await refused(client.query("UPDATE shop.orders SET status = $1", ["x"]), "25006");
  await client.query("SET statement_timeout = 500");
  await refused(client.query("SELECT count(*) FROM generate_series(1, 4000000000) a"), "57014");
  await client.query("SET statement_timeout = DEFAULT");
  await client.query("BEGIN");
  await refused(client.query("SELECT nothing_like_it FROM shop.orders"), "42703");
  await refused(client.query("SELECT 1"), "25P02");
  await client.query("ROLLBACK");
  await client.end();

  const pool = new Pool({ ...place, max: 4 });
  const answers = await Promise.all(Array.from({ length: 12 }, (_, n) => pool.query("SELECT $1::int4 AS n", [n])));
  assert.deepStrictEqual(answers.map((answer) => answer.rows[0].n), Array.from({ length: 12 }, (_, n) => n));
  await pool.end();
  await refused(new Client({ ...place, password: "wrong" }).connect(), "28P01");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
