-- What people type into psql when they look around. Each must answer; what it says is the test's to judge.
\conninfo
\l
\dn
\dn+
\dt
\dt shop.*
\dt+ shop.*
\dv *.*
\d
\d shop.*
\d shop.orders
\d+ shop.orders
\d shop_changes.*
\du
\df
\df shop.*
\di
\ds
\dm
\dT
\dx
\dp
\dp shop.*
\des
\dD
\db
\dC
\do
\ddp
\encoding
\timing on
SELECT count(*) FROM shop.orders \gdesc
SELECT id, status FROM shop.orders ORDER BY id LIMIT 2 \gx
SELECT version();
SELECT current_database(), current_schema(), current_user, session_user;
SHOW server_version;
SHOW search_path;
\set FETCH_COUNT 2
SELECT id FROM shop.orders ORDER BY id LIMIT 5;
\unset FETCH_COUNT
\copy (SELECT id FROM shop.orders ORDER BY id LIMIT 2) TO STDOUT WITH CSV HEADER
BEGIN READ ONLY;
DECLARE reading CURSOR FOR SELECT id FROM shop.orders ORDER BY id;
FETCH 2 FROM reading;
CLOSE reading;
COMMIT;
