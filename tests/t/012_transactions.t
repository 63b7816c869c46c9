# tests/t/012_transactions.t
#
# Transactions in which publishing is refused, leaves nothing, or is not yet
# seen: prepared, read-only, rolled back, parallel, unfinished.

use strict;
use warnings;

use IPC::Run ();
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('transactions', conf => "max_prepared_transactions = 5\n");

create_bus($node);
$node->safe_psql('postgres', q{SELECT message_bus.create_channel('c')});

# PREPARE TRANSACTION is refused after publishing, and only then
sql_fails(
	$node, 'postgres',
	q{BEGIN; SELECT message_bus.publish('c', '"prepared"');
	  PREPARE TRANSACTION 'p'},
	'0A000',
	qr/PREPARE.*HINT:/s,
	'PREPARE TRANSACTION after publishing');
$node->safe_psql('postgres',
	q{BEGIN; SELECT * FROM message_bus.peek('c'); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
ok(1, 'PREPARE TRANSACTION after reading');
is($node->safe_psql('postgres', q{SELECT count(*) FROM message_bus.peek('c')}),
	0, 'the refused transaction left nothing');

# read-only transactions
foreach my $call (
	q{publish('c', '1')},
	q{publish_text('c', '1')},
	q{publish_bytes('c', 'x')},
	q{publish_batch('c', '[{"payload": 1}]')},
	q{publish_batch_bytes('c', ARRAY['x'::bytea])},
	q{create_channel('d')},
	q{store_message('t', 's', 'tool', 'provider', '1')})
{
	my ($name) = $call =~ /(\w+)/;

	sql_fails(
		$node, 'postgres',
		"BEGIN READ ONLY; SELECT message_bus.$call",
		'25006',
		qr/read-only/,
		"$name in a read-only transaction");
}

# rolled back, whole or in part
$node->psql('postgres',
	q{BEGIN; SELECT message_bus.publish('c', '"rolled back"',
	  transaction_id => 'once'); ROLLBACK});
$node->safe_psql(
	'postgres', q{
	BEGIN;
	SELECT message_bus.publish('c', '1');
	SAVEPOINT s;
	SELECT message_bus.publish('c', '2', transaction_id => 'once');
	ROLLBACK TO s;
	SELECT message_bus.publish('c', '3');
	SAVEPOINT s2;
	SELECT message_bus.publish('c', '4', transaction_id => 'once');
	RELEASE s2;
	COMMIT});
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(payload::text, ',' ORDER BY id)
		  FROM message_bus.peek('c')}),
	'1,3,4',
	'what a savepoint undid is not there, and frees its transaction id');

# one bad element, and nothing of the call is stored
sql_fails(
	$node, 'postgres',
	q{SELECT message_bus.publish_batch('c',
	  '[{"payload": 5}, {"payload": 6, "transaction_id": ""},
		{"payload": 7, "nonsense": 1}]')},
	'22023',
	qr/nonsense|transaction_id/,
	'a batch with a bad element');

# an open transaction is not seen, and peek stops before it
my $open = $node->background_psql('postgres');

$open->query_safe(q{BEGIN; SELECT message_bus.publish('c', '"open"')});
$node->safe_psql('postgres', q{SELECT message_bus.publish('c', '"later"')});
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(payload::text, ',' ORDER BY id)
		  FROM message_bus.peek('c')}),
	'1,3,4',
	'peek stops before the first unfinished publish');
$open->query_safe('COMMIT');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(payload::text, ',' ORDER BY id)
		  FROM message_bus.peek('c')}),
	'1,3,4,"open","later"',
	'and goes on when it has ended');

# the second publisher of a transaction id waits for the first's end
$open->query_safe(
	q{BEGIN; SELECT message_bus.publish('c', '"a"', transaction_id => 'w')});

my $second = $node->background_psql('postgres');

$second->query_until(
	qr/started/, q{\echo started
	SELECT message_bus.publish('c', '"b"', transaction_id => 'w');
});
ok( $node->poll_query_until(
		'postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE wait_event_type = 'Lock' AND query LIKE '%"b"%'}),
	'the second publisher waits');
$open->query_safe('ROLLBACK');
$second->query_safe('SELECT 1');
is( $node->safe_psql(
		'postgres',
		q{SELECT payload FROM message_bus.get_by_transaction('c', 'w')}),
	'"b"',
	'and publishes when the first has rolled back');
sql_fails(
	$node, 'postgres',
	q{SELECT message_bus.publish('c', '"other"', transaction_id => 'w')},
	'23505', qr/w/, 'the same transaction id with other bytes');
is( $node->safe_psql(
		'postgres',
		q{SELECT message_bus.publish('c', '"b"', transaction_id => 'w')
		  = (SELECT id FROM message_bus.get_by_transaction('c', 'w'))}),
	't',
	'the same transaction id with the same bytes');
$open->quit;
$second->quit;

# TTL to the moment, also inside an open transaction
is( $node->safe_psql(
		'postgres', q{
		BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT message_bus.publish('c', '"short"', transaction_id => 'ttl',
			ttl => '300 milliseconds') > 0;
		SELECT count(id) FROM message_bus.get_by_transaction('c', 'ttl');
		SELECT pg_sleep(0.4);
		SELECT count(id) FROM message_bus.get_by_transaction('c', 'ttl');
		COMMIT}) =~ s/\s+/,/gr,
	't,1,0',
	'a message expires inside an open transaction');

# publishing switched off
sql_fails(
	$node, 'postgres',
	q{SET message_bus.enabled = off; SELECT message_bus.publish('c', '1')},
	'57000', qr/disabled|enabled/, 'publishing while it is switched off');

$node->stop;
done_testing();
