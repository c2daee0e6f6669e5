-- Ten mixed columns, about 126 bytes of binlog a change; CALL backlog(n) writes n transactions of 1,000 changes:
-- 600 inserts, 300 updates, 100 deletes.
CREATE TABLE digits (n INT PRIMARY KEY);
INSERT INTO digits WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 1000) SELECT n FROM count;
CREATE TABLE changes (
  id BIGINT PRIMARY KEY, quantity INT NOT NULL, amount DECIMAL(12,2), changed TIMESTAMP(6) NULL, day DATE,
  name VARCHAR(100), city VARCHAR(100), note TEXT, flag BOOLEAN, score DOUBLE);
DELIMITER //
CREATE PROCEDURE fill(low BIGINT, high BIGINT)
  INSERT INTO changes
    SELECT g, (g * 7919) % 1000003, ((g * 104729) % 99999989) / 100, TIMESTAMP'2026-01-01 00:00:00' + INTERVAL (g * 1370123) MICROSECOND,
      DATE'2020-01-01' + INTERVAL (g % 2000) DAY, CONCAT('customer-', LPAD(g, 8, '0')),
      ELT(g % 8 + 1, 'Berlin', 'Oslo', 'Lisbon', 'Montevideo', 'Kyoto', 'Nairobi', 'Quito', 'Perth'), LEFT(SHA2(g, 256), 28), g % 3 = 0, g * 0.6180339887e0
    FROM (SELECT low + n - 1 AS g FROM digits WHERE n <= high - low + 1) AS numbers//
CREATE PROCEDURE prepare_rows()
BEGIN
  DECLARE k BIGINT DEFAULT 0;
  WHILE k < 400 DO
    CALL fill(k * 1000 + 1, k * 1000 + 1000);
    SET k = k + 1;
  END WHILE;
END//
CREATE PROCEDURE backlog(transactions INT)
BEGIN
  DECLARE k BIGINT DEFAULT 0;
  DECLARE first_updated BIGINT;
  WHILE k < transactions DO
    START TRANSACTION;
    CALL fill(400001 + k * 600, 400600 + k * 600);
    SET first_updated = 200001 + (k * 300) % 199800;
    UPDATE changes SET quantity = quantity + 1, amount = amount + 1.25, changed = changed + INTERVAL 1 SECOND, note = LEFT(SHA2(id + k, 256), 28)
      WHERE id BETWEEN first_updated AND first_updated + 299;
    DELETE FROM changes WHERE id BETWEEN k * 100 + 1 AND k * 100 + 100;
    COMMIT;
    SET k = k + 1;
  END WHILE;
END//
DELIMITER ;
SET autocommit = 0;
CALL prepare_rows();
COMMIT;
SET autocommit = 1;
