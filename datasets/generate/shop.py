#!/usr/bin/env python3
"""Records the binlog of a small web shop over nine months from a real MariaDB server.

The shop is made up and seeded: the same seed gives the same statements at the same (pretended) times, so a new
recording differs only where the server puts its own mark (its version, identifiers of threads and tables).
What is in it: customers, orders, order lines and payments; orders go through their states in daily jobs, carts are
corrected, customers move and ask to be forgotten, lines are renumbered (a change of key), transactions roll back,
and on the way a column is added.

Needs mariadbd, mariadb and zstd on the PATH, and nothing of Python but its standard library.

    datasets/generate/shop.py                    writes datasets/captures/shop/mysql-bin.000001.zst
    datasets/generate/shop.py --sql              prints the statements instead
"""

import argparse
import datetime as dt
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
UTC = dt.timezone.utc
FIRST_DAY = dt.datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 273

SCHEMA = """
CREATE DATABASE shop CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE customers (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  name VARCHAR(80) NOT NULL,
  email VARCHAR(120) NOT NULL,
  phone VARCHAR(24) NULL,
  country CHAR(2) NOT NULL,
  city VARCHAR(60) NOT NULL,
  birthday DATE NULL,
  newsletter TINYINT(1) NOT NULL DEFAULT 0,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY email (email)
);
CREATE TABLE orders (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  customer_id INT UNSIGNED NOT NULL,
  status ENUM('placed','paid','packed','shipped','delivered','returned','cancelled') NOT NULL,
  currency CHAR(3) NOT NULL,
  total DECIMAL(12,2) NOT NULL,
  placed_at DATETIME(3) NOT NULL,
  updated_at TIMESTAMP(3) NULL,
  note VARCHAR(200) NULL,
  KEY customer_id (customer_id)
);
CREATE TABLE order_lines (
  order_id BIGINT UNSIGNED NOT NULL,
  line SMALLINT UNSIGNED NOT NULL,
  sku VARCHAR(12) NOT NULL,
  product VARCHAR(60) NOT NULL,
  quantity SMALLINT UNSIGNED NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  PRIMARY KEY (order_id, line)
);
CREATE TABLE payments (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  order_id BIGINT UNSIGNED NOT NULL,
  method ENUM('card','paypal','invoice','bank_transfer') NOT NULL,
  card_number VARCHAR(19) NULL,
  amount DECIMAL(12,2) NOT NULL,
  fee DOUBLE NULL,
  status ENUM('authorised','captured','refunded','failed') NOT NULL,
  captured_at TIMESTAMP(6) NULL,
  reference BINARY(8) NOT NULL
);
"""

PLACES = [  # country, currency, weight, cities, given names, family names
    ("DE", "EUR", 30, ["Berlin", "Hamburg", "Köln", "München", "Leipzig"], ["Anna", "Jürgen", "Lena", "Felix", "Greta", "Jonas"], ["Müller", "Schäfer", "Weiß", "Krüger", "Neumann", "Vogt"]),
    ("FR", "EUR", 22, ["Paris", "Lyon", "Nîmes", "Besançon"], ["Zoé", "Hélène", "Loïc", "Chloé", "Noël", "Camille"], ["Lefèvre", "Moreau", "Dubois", "Garçon", "Rousseau"]),
    ("GB", "GBP", 20, ["London", "Leeds", "Bristol", "Glasgow"], ["Olivia", "Harry", "Isla", "George", "Freya", "Arthur"], ["Smith", "O'Neill", "Clarke", "Hughes", "Wood", "Baker"]),
    ("PL", "EUR", 12, ["Kraków", "Łódź", "Gdańsk"], ["Łukasz", "Małgorzata", "Paweł", "Zofia"], ["Wójcik", "Kowalska", "Żak", "Nowak"]),
    ("SE", "EUR", 8, ["Göteborg", "Malmö", "Umeå"], ["Åsa", "Björn", "Elin", "Sören"], ["Öberg", "Lindström", "Sjögren", "Ek"]),
    ("JP", "JPY", 8, ["東京", "大阪", "札幌"], ["陽菜", "蓮", "さくら", "大輔"], ["佐藤", "鈴木", "高橋", "渡辺"]),
]
PRODUCTS = [
    ("Enamel mug", 12.9), ("Pour-over kettle", 64.0), ("Coffee beans 1 kg", 23.5), ("Hand grinder", 79.0), ("Paper filters x100", 6.2),
    ("Linen apron", 34.0), ("Chef's knife 20 cm", 89.0), ("Bread tin", 18.4), ("Cast-iron pan", 54.5), ("Oak board", 41.0),
    ("Tea towel", 9.5), ("Teapot \"Kyū\"", 46.0), ("Sencha 100 g", 14.8), ("Spice set", 27.3), ("Digital scale", 31.9),
    ("Salt cellar", 16.0), ("Pepper mill", 38.0), ("Glass jar 1 l", 7.9), ("Piña peeler", 11.1), ("Crème brûlée torch", 43.2),
]
NOTES = ["leave with the neighbour", "gift, no invoice please", "please ring twice 🔔", "second floor", "call before delivery"]


def quote(value):
    """A value as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, bytes):
        return "x'" + value.hex() + "'"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def values(*row):
    return "(" + ",".join(quote(value) for value in row) + ")"


class Shop:
    """The shop's state, as far as its next statements depend on it, and the statements so far."""

    def __init__(self, seed, scale):
        self.random = random.Random(seed)
        self.scale = scale
        self.sql = []
        self.customers = {}  # id -> (place, orders)
        self.orders = {}  # id -> dict
        self.next_customer, self.next_order, self.next_payment = 1, 100_001, 1
        self.tiers = False

    def at(self, moment):
        self.sql.append(f"SET TIMESTAMP={moment.timestamp():.6f};")

    def transaction(self, moment, *statements, end="COMMIT"):
        self.at(moment)
        self.sql.append("BEGIN;")
        self.sql.extend(statement + ";" for statement in statements)
        self.sql.append(end + ";")

    def insert_customers(self, count):
        rows = []
        for _ in range(count):
            place = self.random.choices(PLACES, weights=[place[2] for place in PLACES])[0]
            country, _, _, cities, given, family = place
            number, self.next_customer = self.next_customer, self.next_customer + 1
            first, last = self.random.choice(given), self.random.choice(family)
            latin = hashlib.sha256((first + last).encode()).hexdigest()[:5] if country == "JP" else "".join(
                letter for letter in (first + "." + last).lower() if letter.isascii() and (letter.isalpha() or letter == "."))
            email = f"{latin}{number}@example.{self.random.choice(['com', 'org', 'net'])}"
            phone = None if self.random.random() < 0.35 else f"+{self.random.randint(31, 81)} {self.random.randint(100, 999)} {self.random.randint(100000, 9999999)}"
            birthday = None if self.random.random() < 0.4 else str(dt.date(1940, 1, 1) + dt.timedelta(days=self.random.randrange(24000)))
            rows.append(values(number, f"{first} {last}", email, phone, country, self.random.choice(cities), birthday, int(self.random.random() < 0.4)))
            self.customers[number] = {"place": place, "orders": 0}
        return "INSERT INTO customers (id,name,email,phone,country,city,birthday,newsletter) VALUES " + ",".join(rows)

    def place_orders(self, moment, count):
        """A transaction of one or more orders, as the checkout queue hands them over, with lines and payments."""
        orders, lines, payments = [], [], []
        for _ in range(count):
            customer = self.random.choice(list(self.customers))
            self.customers[customer]["orders"] += 1
            currency = self.customers[customer]["place"][1]
            rate = {"EUR": 1.0, "GBP": 0.86, "JPY": 164.0}[currency]
            number, self.next_order = self.next_order, self.next_order + 1
            total = 0
            count_lines = min(1 + int(self.random.expovariate(0.55)), 9)
            for line in range(1, count_lines + 1):
                product = self.random.randrange(len(PRODUCTS))
                quantity = self.random.choice([1, 1, 1, 2, 2, 3, 6])
                cents = round(PRODUCTS[product][1] * rate * 100)
                total += quantity * cents
                lines.append(values(number, line, f"LW-{1000 + 37 * product}", PRODUCTS[product][0], quantity) [:-1] + f",{cents / 100:.2f})")
            note = self.random.choice(NOTES) if self.random.random() < 0.08 else None
            placed = moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
            orders.append(f"({number},{customer},'placed','{currency}',{total / 100:.2f},'{placed}',NULL,{quote(note)})")
            method = self.random.choices(["card", "paypal", "invoice", "bank_transfer"], weights=[55, 25, 12, 8])[0]
            card = "4" + "".join(str(self.random.randrange(10)) for _ in range(15)) if method == "card" else None
            fee = round(total / 100 * 0.0143 + 0.1, 4) if method in ("card", "paypal") else None
            payment, self.next_payment = self.next_payment, self.next_payment + 1
            payments.append(f"({payment},{number},'{method}',{quote(card)},{total / 100:.2f},{quote(fee)},'authorised',NULL,{quote(self.random.randbytes(8))})")
            self.orders[number] = {"customer": customer, "status": "placed", "since": moment, "lines": count_lines, "payment": payment}
        self.transaction(
            moment,
            "INSERT INTO orders VALUES " + ",".join(orders),
            "INSERT INTO order_lines VALUES " + ",".join(lines),
            "INSERT INTO payments VALUES " + ",".join(payments),
        )

    def advance(self, moment, before, after, age, share=1.0, with_payments=None):
        """A daily job: orders of some age go to their next state, and their payments with them."""
        due = [number for number, order in self.orders.items()
               if order["status"] == before and moment - order["since"] >= dt.timedelta(hours=age) and self.random.random() < share]
        if not due:
            return
        ids = ",".join(map(str, due))
        statements = [f"UPDATE orders SET status='{after}', updated_at=CURRENT_TIMESTAMP(3) WHERE id IN ({ids})"]
        if with_payments:
            payments = ",".join(str(self.orders[number]["payment"]) for number in due)
            captured = ", captured_at=CURRENT_TIMESTAMP(6)" if with_payments == "captured" else ""
            statements.append(f"UPDATE payments SET status='{with_payments}'{captured} WHERE id IN ({payments})")
        self.transaction(moment, *statements)
        for number in due:
            self.orders[number].update(status=after, since=moment)
        if after in ("delivered", "returned", "cancelled"):
            for number in due:
                if after != "delivered":
                    del self.orders[number]

    def correct_a_cart(self, moment):
        """The first line goes and the rest move up: deletes and changes of key."""
        candidates = [number for number, order in self.orders.items() if order["status"] == "placed" and order["lines"] > 1]
        if not candidates:
            return
        number = self.random.choice(candidates)
        self.transaction(
            moment,
            f"DELETE FROM order_lines WHERE order_id={number} AND line=1",
            f"UPDATE order_lines SET line=line-1 WHERE order_id={number} ORDER BY line",
            f"UPDATE orders SET total=(SELECT sum(quantity*price) FROM order_lines WHERE order_id={number}), updated_at=CURRENT_TIMESTAMP(3) WHERE id={number}",
            f"UPDATE payments SET amount=(SELECT total FROM orders WHERE id={number}) WHERE order_id={number}",
        )
        self.orders[number]["lines"] -= 1

    def forget_a_customer(self, moment):
        """Somebody without orders asks to be forgotten."""
        candidates = [number for number, customer in self.customers.items() if customer["orders"] == 0]
        if candidates:
            number = self.random.choice(candidates)
            self.transaction(moment, f"DELETE FROM customers WHERE id={number}")
            del self.customers[number]

    def a_day(self, day):
        midnight = FIRST_DAY + dt.timedelta(days=day)
        growth = 0.6 + 0.8 * day / DAYS
        weekend = 1.35 if midnight.weekday() >= 5 else 1.0
        sale = 2.2 if (midnight.month, midnight.day) in {(5, 15), (5, 16), (5, 17)} else 1.0
        season = {1: 0.8, 2: 0.85, 7: 0.75, 8: 0.8}.get(midnight.month, 1.0)
        demand = growth * weekend * sale * season * self.scale

        moments = sorted(midnight + dt.timedelta(seconds=self.random.uniform(6 * 3600, 86000)) for _ in range(max(1, round(7 * demand))))
        moments = [moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in moments]
        jobs = [
            (midnight + dt.timedelta(hours=1), lambda at: self.advance(at, "placed", "cancelled", 4, share=0.03, with_payments="failed")),
            (midnight + dt.timedelta(hours=2), lambda at: self.advance(at, "placed", "paid", 2, share=0.95, with_payments="captured")),
            (midnight + dt.timedelta(hours=4), lambda at: self.advance(at, "paid", "packed", 2, share=0.9)),
            (midnight + dt.timedelta(hours=5), lambda at: self.advance(at, "packed", "shipped", 20, share=0.9)),
            (midnight + dt.timedelta(hours=5.5), lambda at: self.advance(at, "shipped", "delivered", 44, share=0.6)),
            (midnight + dt.timedelta(hours=5.8), lambda at: self.advance(at, "delivered", "returned", 96, share=0.004, with_payments="refunded")),
        ]
        # Customers sign up in the morning's import, and some in the evening.
        jobs.append((midnight + dt.timedelta(hours=5.9), lambda at: self.transaction(at, self.insert_customers(max(1, round(9 * demand))))))
        for _ in range(round(1.5 * demand)):
            jobs.append((midnight + dt.timedelta(seconds=self.random.uniform(70000, 86000)), self.correct_a_cart))
        if self.random.random() < 0.5:
            jobs.append((midnight + dt.timedelta(seconds=self.random.uniform(30000, 60000)), self.forget_a_customer))
        if self.random.random() < 0.6:
            jobs.append((midnight + dt.timedelta(seconds=self.random.uniform(30000, 60000)), self.somebody_moves))
        if self.random.random() < 0.2:
            jobs.append((midnight + dt.timedelta(seconds=self.random.uniform(30000, 60000)), self.a_failed_checkout))
        if self.tiers and day % 10 == 0:
            jobs.append((midnight + dt.timedelta(hours=5.95), self.award_tiers))
        jobs.extend((moment, lambda at: self.place_orders(at, self.random.choice([1, 1, 2, 2, 3, 4]))) for moment in moments)
        if day == 150:  # 31 May
            jobs.append((midnight + dt.timedelta(hours=3), self.add_tiers))
        if day == 200:
            jobs.append((midnight + dt.timedelta(hours=3), self.renumber_a_customer))
        for moment, job in sorted(jobs, key=lambda pair: pair[0]):
            job(moment)

    def somebody_moves(self, moment):
        number = self.random.choice(list(self.customers))
        city = self.random.choice(self.customers[number]["place"][3])
        self.transaction(moment, f"UPDATE customers SET city={quote(city)}, phone=NULL WHERE id={number}")

    def a_failed_checkout(self, moment):
        """Begun and rolled back: must be in nobody's data."""
        number = self.random.choice(list(self.customers))
        self.transaction(moment, f"INSERT INTO orders VALUES (1,{number},'placed','EUR',1.00,NOW(3),NULL,'never happened')", end="ROLLBACK")

    def add_tiers(self, moment):
        self.at(moment)
        self.sql.append("ALTER TABLE customers ADD COLUMN tier ENUM('bronze','silver','gold') NULL AFTER country;")
        self.tiers = True

    def award_tiers(self, moment):
        tiers = [(1, 1, "bronze"), (2, 4, "silver"), (5, 10**9, "gold")]
        for low, high, tier in tiers:
            ids = [number for number, customer in self.customers.items() if low <= customer["orders"] <= high]
            if ids:
                self.transaction(moment, f"UPDATE customers SET tier='{tier}' WHERE id IN ({','.join(map(str, ids))})")

    def renumber_a_customer(self, moment):
        """Two accounts of one person become one under a number of its own: a change of a key that others refer to."""
        old = self.random.choice([number for number, customer in self.customers.items() if customer["orders"] >= 2])
        new = 900_000 + old
        self.transaction(moment, f"UPDATE customers SET id={new} WHERE id={old}", f"UPDATE orders SET customer_id={new} WHERE customer_id={old}")
        self.customers[new] = self.customers.pop(old)
        for order in self.orders.values():
            if order["customer"] == old:
                order["customer"] = new

    def nine_months(self):
        self.sql.append("SET NAMES utf8mb4; SET time_zone='+00:00';")
        self.at(FIRST_DAY)
        self.sql.append(SCHEMA)
        self.transaction(FIRST_DAY + dt.timedelta(seconds=1), self.insert_customers(200))
        for day in range(DAYS):
            self.a_day(day)
        return "\n".join(self.sql) + "\n"


def record(sql, out):
    """Runs the statements on a fresh server and leaves its first binlog file, compressed, in `out`."""
    for tool in ("mariadbd", "mariadb", "mariadb-install-db", "zstd"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed; run scripts/install-test-tools")
    with tempfile.TemporaryDirectory(prefix="logweir-shop-") as root:
        root = pathlib.Path(root)
        data, socket = root / "data", root / "s"
        subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
                        "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(root)})
        (root / "my.cnf").write_text(
            f"[mysqld]\ndatadir={data}\nsocket={socket}\npid_file={root}/pid\nlog_error={root}/error.log\ntmpdir={root}\nskip_networking\nserver_id=1\n"
            "log_bin=mysql-bin\nbinlog_format=ROW\nbinlog_row_image=FULL\nbinlog_row_metadata=FULL\nbinlog_annotate_row_events=OFF\n"
            "max_binlog_size=1G\ngtid_strict_mode=ON\ncharacter_set_server=utf8mb4\ncollation_server=utf8mb4_unicode_ci\n"
            "default_time_zone=+00:00\ninnodb_flush_log_at_trx_commit=0\nsync_binlog=0\n")
        server = subprocess.Popen(["mariadbd", f"--defaults-file={root}/my.cnf", "--user=root"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client = ["mariadb", "--no-defaults", "-uroot", f"--socket={socket}", "--default-character-set=utf8mb4"]
            for _ in range(300):
                if subprocess.run([*client, "-e", "select 1"], capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            subprocess.run(client, input=sql.encode(), check=True)
            subprocess.run([*client, "-e", "FLUSH BINARY LOGS"], check=True)
            binlog = data / "mysql-bin.000001"
            out.mkdir(parents=True, exist_ok=True)
            target = out / "mysql-bin.000001.zst"
            subprocess.run(["zstd", "-q", "-f", "-19", str(binlog), "-o", str(target)], check=True)
            print(f"{target}: {binlog.stat().st_size:,} bytes of binlog in {target.stat().st_size:,}")
        finally:
            server.terminate()
            server.wait(60)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--scale", type=float, default=1.0, help="how busy the shop is")
    arguments.add_argument("--sql", action="store_true", help="print the statements and record nothing")
    arguments.add_argument("--out", type=pathlib.Path, default=HERE.parent / "captures" / "shop")
    options = arguments.parse_args()
    sql = Shop(options.seed, options.scale).nine_months()
    if options.sql:
        sys.stdout.write(sql)
    else:
        record(sql, options.out)


if __name__ == "__main__":
    main()
