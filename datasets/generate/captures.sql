-- Statements of the scenarios of captures.py, by section.
-- [types]
CREATE TABLE numbers (
  id INT PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT, mu MEDIUMINT UNSIGNED,
  i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, f FLOAT, d DOUBLE, d1 DECIMAL(10,2), d2 DECIMAL(38,10), d3 DECIMAL(65,30),
  d4 DECIMAL(5,5), b1 BIT(1), b7 BIT(7), b64 BIT(64), y YEAR, z INT ZEROFILL);
INSERT INTO numbers VALUES
  (1, -128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0, -1.5, -1e308, -99999999.99, -9999999999999999999999999999.9999999999,
   -99999999999999999999999999999999999.999999999999999999999999999999, -0.99999, b'0', b'0', b'0', 1901, 0),
  (2, 127, 255, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295, 9223372036854775807, 18446744073709551615, 1.5, 1e308, 99999999.99,
   9999999999999999999999999999.9999999999, 99999999999999999999999999999999999.999999999999999999999999999999, 0.99999, b'1', b'1111111', ~0, 2155, 4294967295),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, 3.25, 0.1, -0.01, 0.0000000001, -0.000000000000000000000000000001, 0.00001, b'1', b'1010101',
   0x0102030405060708, 0, 42);
CREATE TABLE times (
  id INT PRIMARY KEY, d DATE, t0 TIME, t1 TIME(1), t6 TIME(6), dt0 DATETIME, dt3 DATETIME(3), dt6 DATETIME(6), ts0 TIMESTAMP NULL, ts6 TIMESTAMP(6) NULL);
INSERT INTO times VALUES
  (1, '1000-01-01', '-838:59:59', '-00:00:00.1', '-838:59:59.000000', '1000-01-01 00:00:00', '1000-01-01 00:00:00.001', '0001-01-01 00:00:00.000001', '1970-01-01 00:00:01', '1970-01-01 00:00:01.000001'),
  (2, '9999-12-31', '838:59:59', '00:00:00.9', '12:34:56.789012', '9999-12-31 23:59:59', '9999-12-31 23:59:59.999', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07', '2038-01-19 03:14:07.999999'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, '2024-02-29', '00:00:00', '-12:00:00.5', '-00:00:00.000001', '2024-02-29 12:00:00', '1969-12-31 23:59:59.500', '1969-12-31 23:59:59.999999', '2024-02-29 12:00:00', '2024-02-29 12:00:00.5');
CREATE TABLE strings (
  id INT PRIMARY KEY, c CHAR(10), cw CHAR(255), v VARCHAR(20), vw VARCHAR(1000), tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT,
  b4 BINARY(4), vb VARBINARY(10), tb TINYBLOB, bb BLOB, lat VARCHAR(20) CHARACTER SET latin1, u2 VARCHAR(20) CHARACTER SET ucs2,
  sj VARCHAR(20) CHARACTER SET sjis, kr CHAR(5) CHARACTER SET koi8r, e ENUM('a','it''s','ü') CHARACTER SET latin1, s SET('x','y','z'));
INSERT INTO strings VALUES
  (1, 'char', 'wide ✓', 'varchar 😀', REPEAT('v', 300), 'tiny', 'text', 'medium', REPEAT('l', 400), x'01020000', x'0100', x'ff', x'00ff00', 'é€', 'ä✓', 'テスト', 'приве', 'it''s', 'x,z'),
  (2, '', '', '', '', '', '', '', '', x'', x'', x'', x'', '', '', '', '', 'ü', ''),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, 'trailing  ', 'x', ' a ', 'b', 'c', 'd', 'e', 'f', x'00000001', x'0000', x'', x'01', 'ÿ', 'z', 'ｱ', 'Ж', 'nothing like it', 'x,y,z');
-- [types-mariadb]
CREATE TABLE special (
  id INT PRIMARY KEY, u UUID, i4 INET4, i6 INET6, j JSON, g GEOMETRY, p POINT, vc VARCHAR(1000) COMPRESSED, tc TEXT COMPRESSED, bc BLOB COMPRESSED,
  vl VARCHAR(100) CHARACTER SET latin1 COMPRESSED);
INSERT INTO special VALUES
  (1, '123e4567-e89b-12d3-a456-426655440000', '192.0.2.1', '2001:db8::ff00:42:8329', '{"a": [1, null, "ü"]}', ST_GeomFromText('LINESTRING(0 0,1 2)'), POINT(3, 4),
   REPEAT('v', 500), REPEAT('text ', 100), REPEAT(x'00ff', 200), REPEAT('é', 60)),
  (2, '00000000-0000-0000-0000-000000000000', '0.0.0.0', '::', '[]', NULL, POINT(-1.5, 0), '', '', '', 'short é'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, 'ffffffff-ffff-4fff-bfff-ffffffffffff', '255.255.255.255', '::ffff:192.0.2.1', 'null', ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))', 4326), POINT(0, 0), 'v', 't', 'b', 'x');
-- [types-mysql]
CREATE TABLE special (id INT PRIMARY KEY, j JSON, g GEOMETRY, p POINT SRID 4326, v VECTOR(3));
INSERT INTO special VALUES
  (1, '{"a": [1, null, "ü"], "b": {"c": 1.5, "d": true}}', ST_GeomFromText('LINESTRING(0 0,1 2)'), ST_GeomFromText('POINT(1 2)', 4326), TO_VECTOR('[1,-2.5,3]')),
  (2, '[]', ST_GeomFromText('POINT(3 4)', 3857), NULL, TO_VECTOR('[0]')),
  (3, NULL, NULL, NULL, NULL),
  (4, 'null', ST_GeomFromText('POINT(3 4)', 3857), ST_GeomFromText('POINT(-1.5 0)', 4326), NULL),
  (5, JSON_ARRAY(CAST('2024-02-29' AS DATE), CAST('2024-02-29 12:00:00.5' AS DATETIME(1)), CAST('-12:34:56' AS TIME), 1.25, 18446744073709551615, -1, 'q"\\'), NULL, NULL, NULL),
  (6, JSON_OBJECT('n', CAST(123456789012345678901234567890.12 AS DECIMAL(32,2)), 'f', 1e308, 'z', 0.0, 'long', REPEAT('x', 300)), NULL, NULL, NULL);
-- [changes]
CREATE TABLE keyed (id INT PRIMARY KEY, a VARCHAR(20), n INT);
CREATE TABLE composite (v VARCHAR(10), a INT, b INT, PRIMARY KEY (b, a));
CREATE TABLE keyless (a INT, b VARCHAR(10));
CREATE TABLE emptied (id INT PRIMARY KEY);
INSERT INTO keyed VALUES (1, 'one', 1), (2, 'two', NULL), (3, 'three', 3);
INSERT INTO composite VALUES ('x', 1, 10), ('y', 2, 20);
INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (NULL, NULL);
INSERT INTO emptied VALUES (1), (2);
UPDATE keyed SET n = 11 WHERE id = 1;
UPDATE keyed SET id = 22 WHERE id = 2;
UPDATE composite SET v = 'z' WHERE a = 1;
UPDATE composite SET a = 3, v = NULL WHERE b = 20;
UPDATE keyless SET b = 'b' WHERE a = 1 LIMIT 1;
DELETE FROM keyed WHERE id = 3;
DELETE FROM keyless WHERE a IS NULL;
START TRANSACTION;
INSERT INTO keyed VALUES (4, 'four', 4);
UPDATE keyed, composite SET keyed.n = 0, composite.v = 'both' WHERE keyed.id = 1 AND composite.b = 10;
SAVEPOINT s;
INSERT INTO keyed VALUES (5, 'undone', 5);
ROLLBACK TO s;
DELETE FROM emptied WHERE id = 1;
COMMIT;
START TRANSACTION;
INSERT INTO keyed VALUES (6, 'never', 6);
ROLLBACK;
TRUNCATE TABLE emptied;
INSERT INTO emptied VALUES (3);
ALTER TABLE keyed ADD COLUMN extra DECIMAL(5,1) DEFAULT 1.5 AFTER id;
INSERT INTO keyed VALUES (7, 2.5, 'seven', 7);
UPDATE keyed SET a = 'uno' WHERE id = 1;
ALTER TABLE keyed RENAME COLUMN n TO count, DROP COLUMN extra;
INSERT INTO keyed VALUES (8, 'eight', 8);
CREATE INDEX i ON keyed (a);
INSERT INTO keyed VALUES (9, 'nine', 9);
RENAME TABLE emptied TO renamed;
INSERT INTO renamed VALUES (4);
/*! TRUNCATE */ TABLE renamed;
DROP TABLE keyless;
-- [changes-mariadb]
SET gtid_domain_id = 9;
INSERT INTO renamed VALUES (5);
-- [changes-mysql]
SET gtid_next = 'AUTOMATIC:blue';
INSERT INTO renamed VALUES (5);
SET gtid_next = 'AUTOMATIC';
CREATE TABLE selected (id INT PRIMARY KEY) AS SELECT 1 AS id;
-- [images]
CREATE TABLE image (id INT PRIMARY KEY, a INT, b VARCHAR(10), c BLOB, d TEXT);
INSERT INTO image VALUES (1, 1, 'b', 'c', 'd'), (2, 2, 'bb', 'cc', 'dd'), (3, NULL, NULL, NULL, NULL);
UPDATE image SET a = 11 WHERE id = 1;
UPDATE image SET c = 'new', b = NULL WHERE id = 2;
UPDATE image SET id = 33, a = 3 WHERE id = 3;
DELETE FROM image WHERE id = 1;
-- [partial-json]
CREATE TABLE documents (id INT PRIMARY KEY, j JSON);
INSERT INTO documents VALUES (1, '{"a": 1, "b": "a longer text so that a difference is smaller"}');
UPDATE documents SET j = JSON_SET(j, '$.a', 2);
-- [old-temporals]
CREATE TABLE old (id INT PRIMARY KEY, a TIME, b DATETIME, c TIMESTAMP NULL);
INSERT INTO old VALUES (1, '-838:59:59', '1000-01-01 00:00:00', '1970-01-01 00:00:01'), (2, '12:34:56', '9999-12-31 23:59:59', '2038-01-19 03:14:07'), (3, NULL, NULL, NULL);
-- [statement]
CREATE TABLE counted (id INT PRIMARY KEY, n INT);
INSERT INTO counted VALUES (1, 1);
SET SESSION binlog_format = STATEMENT;
UPDATE counted SET n = n + 1;
-- [load-data]
CREATE TABLE loaded (id INT PRIMARY KEY, name VARCHAR(10));
LOAD DATA LOCAL INFILE '$LOAD' INTO TABLE loaded;
-- [rolled-back]
CREATE TABLE plain (id INT PRIMARY KEY) ENGINE=MyISAM;
CREATE TABLE safe (id INT PRIMARY KEY) ENGINE=InnoDB;
INSERT INTO plain VALUES (1);
START TRANSACTION;
INSERT INTO safe VALUES (2);
INSERT INTO plain VALUES (2);
ROLLBACK;
INSERT INTO safe VALUES (3);
-- [xa]
CREATE TABLE prepared (id INT PRIMARY KEY);
INSERT INTO prepared VALUES (1);
XA START 'x';
INSERT INTO prepared VALUES (2);
XA END 'x';
XA PREPARE 'x';
XA COMMIT 'x';
INSERT INTO prepared VALUES (3);
-- [zero-date]
CREATE TABLE zero (id INT PRIMARY KEY, d DATE);
INSERT INTO zero VALUES (1, '2024-01-01');
INSERT INTO zero VALUES (2, '0000-00-00');
