-- Twelve mixed columns; CALL backlog(n) writes n transactions of 1,000 changes: 600 inserts, 300 updates, 100 deletes.
CREATE TABLE changes (
  id bigint PRIMARY KEY, quantity int NOT NULL, store smallint, amount numeric(12,2), changed timestamptz, made timestamp, day date,
  name text, city varchar(100), note text, flag boolean, attributes jsonb);
CREATE FUNCTION fill(low bigint, high bigint) RETURNS void LANGUAGE sql AS $$
  INSERT INTO changes
    SELECT g, g * 7919 % 1000003, g % 30000, (g * 104729 % 99999989) / 100.0, timestamptz '2026-01-01 00:00:00+00' + g * interval '1.370123 s',
      timestamp '2020-01-01' + g * interval '1 min', date '2020-01-01' + (g % 2000)::int, 'customer-' || lpad(g::text, 8, '0'),
      (array['Berlin','Oslo','Lisbon','Montevideo','Kyoto','Nairobi','Quito','Perth'])[g % 8 + 1], left(md5(g::text), 28), g % 3 = 0,
      jsonb_build_object('level', g % 7, 'tags', jsonb_build_array('a', g % 100))
    FROM generate_series(low, high) AS g
$$;
CREATE PROCEDURE backlog(transactions int) LANGUAGE plpgsql AS $$
DECLARE
  first_updated bigint;
BEGIN
  FOR k IN 0 .. transactions - 1 LOOP
    PERFORM fill(400001 + k::bigint * 600, 400600 + k::bigint * 600);
    first_updated := 200001 + (k * 300) % 199800;
    UPDATE changes SET quantity = quantity + 1, amount = amount + 1.25, changed = changed + interval '1 s', note = left(md5((id + k)::text), 28)
      WHERE id BETWEEN first_updated AND first_updated + 299;
    DELETE FROM changes WHERE id BETWEEN k * 100 + 1 AND k * 100 + 100;
    COMMIT;
  END LOOP;
END $$;
SELECT fill(1, 400000);

-- Fifteen mixed columns; CALL rows(n) fills them.
CREATE TABLE present (
  id bigint PRIMARY KEY, quantity int, store smallint, amount numeric(12,2), price numeric(18,4), changed timestamptz, made timestamp, day date,
  name text, city text, note text, flag boolean, score double precision, ratio real, reference uuid);
CREATE PROCEDURE fill_present(count bigint) LANGUAGE sql AS $$
  INSERT INTO present
    SELECT g, g * 7919 % 1000003, g % 30000, (g * 104729 % 99999989) / 100.0, (g * 15485863 % 9999999967) / 10000.0,
      timestamptz '2026-01-01 00:00:00+00' + g * interval '1.370123 s', timestamp '2020-01-01' + g * interval '1 min', date '2020-01-01' + (g % 2000)::int,
      'customer-' || lpad(g::text, 8, '0'), (array['Berlin','Oslo','Lisbon','Montevideo','Kyoto','Nairobi','Quito','Perth'])[g % 8 + 1],
      CASE WHEN g % 10 > 0 THEN left(md5(g::text), 28) END, g % 3 = 0, g * 0.6180339887, (g % 1000) * 0.25, md5(g::text)::uuid
    FROM generate_series(1, count) AS g
$$;

-- What is written at a pace.
CREATE TABLE ticks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, quantity int, amount numeric(12,2), changed timestamptz, name text, note text);

-- One large transaction: a row has about 1,000 bytes of text.
CREATE TABLE large (id bigint PRIMARY KEY, body text);

CREATE PUBLICATION changes FOR TABLE changes;
CREATE PUBLICATION present FOR TABLE present;
CREATE PUBLICATION ticks FOR TABLE ticks;
CREATE PUBLICATION large FOR TABLE large;
