# tests/t/011_databases.t
#
# Several databases, and databases and extensions that come and go while
# their workers live.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('databases', databases => [ 'one', 'two' ]);

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(one two);
create_bus($node, $_) foreach qw(one two);

# two buses do not see each other
foreach my $database (qw(one two))
{
	$node->safe_psql(
		$database, qq{
		SELECT message_bus.create_channel('orders');
		SELECT message_bus.publish('orders', to_json('$database ' || i),
			transaction_id => 'order ' || i)
		FROM generate_series(1, 50) i});
}
foreach my $database (qw(one two))
{
	is( $node->safe_psql(
			$database,
			q{SELECT count(*), min(payload #>> '{}'), max(payload #>> '{}')
			  FROM message_bus.peek('orders')}),
		"50|$database 1|$database 9",
		"database $database has its own messages");
}
isnt(worker_pid($node, 'one'), worker_pid($node, 'two'),
	'each database has its worker');

# the extension goes and comes back: nothing of the old one is left
my $worker = worker_pid($node, 'one');

$node->safe_psql('one', 'DROP EXTENSION message_bus');
is( $node->safe_psql(
		'one',
		q{SELECT count(*) FROM pg_class
		  WHERE relname ~ '^(message|event)_[0-9]+$'}),
	0,
	'DROP EXTENSION drops the segments');
sql_fails($node, 'one', q{SELECT message_bus.publish('default', '1')},
	'3F000', qr/message_bus/, 'publishing after DROP EXTENSION');
foreach my $round (1 .. 3)
{
	create_bus($node, 'one');
	sql_fails($node, 'one', q{SELECT message_bus.publish('orders', '1')},
		'42P01', qr/orders/, "round $round: the old channels are gone");
	is( $node->safe_psql(
			'one', qq{
			SELECT message_bus.create_channel('orders');
			SELECT message_bus.publish('orders', '"$round"',
				transaction_id => 'order 1') > 0}) =~ /t$/,
		1,
		"round $round: and so are their transaction ids");
	is( $node->safe_psql(
			'one',
			q{SELECT string_agg(payload #>> '{}', ',')
			  FROM message_bus.peek('orders')}),
		$round,
		"round $round: the new one works");
	$node->safe_psql('one', 'DROP EXTENSION message_bus') if $round < 3;
}

# made and dropped in one transaction, or rolled back
$node->safe_psql('one', 'DROP EXTENSION message_bus');
$node->safe_psql('one',
	'BEGIN; CREATE EXTENSION message_bus; ROLLBACK');
create_bus($node, 'one');
$node->safe_psql('one', 'BEGIN; DROP EXTENSION message_bus; ROLLBACK');
bus_ready($node, 'one');
ok(1, 'CREATE and DROP EXTENSION can be rolled back');

# a database with a live worker can be dropped
isnt(worker_pid($node, 'two'), '', 'the worker of database two runs');
$node->safe_psql('postgres', 'DROP DATABASE two');
wait_for('the worker to be gone',
	sub { worker_pid($node, 'two') eq '' });
ok(1, 'DROP DATABASE works, and the worker ends');
$node->safe_psql('postgres', 'CREATE DATABASE two');
create_bus($node, 'two');
is($node->safe_psql('two', q{SELECT count(*) FROM message_bus.channels}),
	1, 'a database of the same name starts anew');

# it can also be renamed away and be a template's source
$node->safe_psql('postgres', 'ALTER DATABASE two RENAME TO three');
$node->append_conf('postgresql.conf',
	"message_bus.databases = 'one,three'");
$node->reload;
bus_ready($node, 'three');
ok(1, 'a renamed database is served under its new name');
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE three');
ok(1, 'a database with a worker can be copied');

# a database that is taken off the list loses its worker
$node->append_conf('postgresql.conf', "message_bus.databases = 'one'");
$node->reload;
wait_for('the worker to be gone',
	sub { worker_pid($node, 'three') eq '' });
sql_fails(
	$node, 'three',
	q{SELECT message_bus.publish('default', '1')},
	'55000',
	qr/HINT:.*message_bus\.databases/s,
	'publishing in a database that was taken off the list');
bus_ready($node, 'one');

$node->stop;
done_testing();
