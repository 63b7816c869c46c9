--
-- ids and leases tell their node: id_node(), lease_node(), message_bus.node
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SHOW message_bus.node;
SELECT pg_temp.fails('SET message_bus.node = 1');
SELECT provolatile, proisstrict, proparallel FROM pg_proc WHERE proname IN ('id_node', 'lease_node');

-- ordinal << 29 | node << 24 | row, below 2^53
SELECT ordinal, node, message_bus.id_node((ordinal << 29) + (node << 24) + row) AS told
	FROM (VALUES (1::bigint, 0::bigint, 0::bigint), (1, 31, 0), (1, 0, 16777215), (16777215, 7, 1),
		(16777215, 31, 16777215)) AS v (ordinal, node, row);
SELECT message_bus.id_node(NULL), message_bus.id_node(0), message_bus.id_node(-1),
	message_bus.id_node((1::bigint << 53) - 1), message_bus.id_node(1::bigint << 53), message_bus.id_node(9223372036854775807);

-- ordinal << 33 | node << 28 | n
SELECT ordinal, node, message_bus.lease_node((ordinal << 33) + (node << 28) + n) AS told
	FROM (VALUES (1::bigint, 0::bigint, 0::bigint), (1, 31, 0), (1, 0, 268435455), (1048575, 7, 1),
		(1048575, 31, 268435455)) AS v (ordinal, node, n);
SELECT message_bus.lease_node(NULL), message_bus.lease_node(0), message_bus.lease_node(-1),
	message_bus.lease_node((1::bigint << 53) - 1), message_bus.lease_node(1::bigint << 53);

-- what is given out is of this node; anybody may ask
CREATE ROLE regress_mbus_asks;
SELECT message_bus.create_channel('ids');
SELECT message_bus.create_subscription('ids', 's');
SELECT message_bus.publish('ids', '1') AS id \gset
SET ROLE regress_mbus_asks;
SELECT message_bus.id_node(:id), :id < 1::bigint << 53 AS exact, :id >> 29 > 0 AS has_ordinal;
RESET ROLE;
SELECT message_bus.id_node(id), message_bus.lease_node(lease), lease < 1::bigint << 53 AS exact,
		-- the epoch: seconds since 2025
		abs(((lease >> 33) << 11) + ((lease >> 17) & 2047) - extract(epoch FROM now() - '2025-01-01 00:00+00'::timestamptz)) < 100000 AS epoch
	FROM message_bus.claim('ids', 's');
SELECT node = 0 AS recorded FROM message_bus.server_state;
SELECT node, segments_used > 0 AND segments_used < 1 AS segments, epochs_used > 0 AND epochs_used < 50 AS epochs, warning
	FROM message_bus.worker_status;

SELECT message_bus.drop_channel('ids');
DROP ROLE regress_mbus_asks;
