# tests/t/029_foreign.t
#
# Tables of segments that are restored without the channels that they are of,
# or beside others, give their messages to nobody: pg_dump -n message_bus, one
# table, a restore whose channels do not fit.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @databases = qw(fresh late mixed early again whole);
my $node = bus_node('node', databases => [ 'postgres', @databases ],
	conf => "message_bus.worker_interval = 100ms\nmax_worker_processes = 16\n");
my $dump = $node->basedir . '/dump';
my $tables = $node->basedir . '/tables';

# query returns what a query returns.
sub query
{
	my ($database, $sql) = @_;

	return $node->safe_psql($database, $sql);
}

# dump_of writes a dump.
sub dump_of
{
	my ($database, $file, @option) = @_;

	command_ok(
		[
			'pg_dump', '--format=custom', @option, "--file=$file", '--host',
			$node->host, '--port', $node->port, $database
		],
		"pg_dump @option");
	return;
}

# restore runs pg_restore; returns whether nothing failed.
sub restore
{
	my ($database, $file, @option) = @_;

	return run_log(
		[
			'pg_restore', @option, '--host', $node->host, '--port',
			$node->port, '--dbname', $database, $file
		]);
}

# state waits until a segment has a state.
sub state
{
	my ($database, $segment, $state, $name) = @_;

	wait_for(
		"segment $segment to be $state",
		sub {
			query($database,
				"SELECT state FROM message_bus.segments WHERE segment_no = $segment")
			  eq $state;
		});
	ok(1, $name);
	return;
}

# seen returns what a role sees of others' messages, by all ways there are.
sub seen
{
	my ($database, $role, $channel, $id) = @_;

	return query(
		$database, qq{
		BEGIN;
		SET ROLE $role;
		SELECT (SELECT count(*) FROM message_bus.peek('$channel', max_messages => 1000)
				WHERE payload::text ~ 'secret')
			+ (SELECT count(*) FROM message_bus.messages WHERE headers::text ~ 'secret')
			+ (SELECT count(*) FROM message_bus.message_bus WHERE payload::text ~ 'secret')
			+ (SELECT count(*) FROM message_bus.get($id))
			+ (SELECT count(*) FROM message_bus.get_by_transaction('$channel', 't1'))
			+ (SELECT count(*) FROM message_bus.dead_letters)
			+ (SELECT count(*) FROM message_bus.claim('$channel', batch => 1000)
				WHERE payload::text ~ 'secret');
		ROLLBACK});
}

# logged tells how often the log says that a segment is foreign.
sub logged
{
	my ($segment) = @_;

	return scalar(() = slurp_file($node->logfile) =~
		  /segment $segment of message_bus is foreign/g);
}

$node->safe_psql('postgres', 'CREATE ROLE hr; CREATE ROLE somebody');
create_bus($node);
# facts of a segment that all of these databases have
query(
	'postgres', q{
	SELECT message_bus.create_subscription('default', 'default');
	SELECT message_bus.record_event(id, 'deleted', now())
	FROM message_bus.peek('default')});
query('postgres', q{SELECT message_bus.publish('default', '"acked"')});
query('postgres', q{SELECT message_bus.ack(lease) FROM message_bus.claim('default')});
my $first = query('postgres', q{SELECT min(id) >> 24 FROM message_bus.messages});
query(
	'postgres', q{
	UPDATE message_bus.server_state SET next_segment = 9 << 5;
	SELECT message_bus.create_channel('orders', ttl => '3 days', max_attempts => 1);
	SELECT message_bus.create_subscription('orders', 'default')});
$node->restart;
bus_ready($node);
query(
	'postgres', q{
	SELECT message_bus.publish('orders', to_json('secret ' || i),
		headers => '{"of": "secret"}', transaction_id => 't' || i)
	FROM generate_series(1, 100) i;
	SELECT message_bus.publish('default', '"secret by default"', headers => '{"of": "secret"}')});
query('postgres',
	q{SELECT count(message_bus.ack(lease, ARRAY[id])) FROM message_bus.claim('orders', batch => 20)});
query('postgres',
	q{SELECT count(message_bus.nack(lease, ARRAY[id])) FROM message_bus.claim('orders', batch => 3)});
my ($id, $segment) = split /\|/, query('postgres',
	q{SELECT max(id), max(id) >> 24 FROM message_bus.messages WHERE channel = 'orders'});
my $other = query('postgres',
	q{SELECT max(id) >> 24 FROM message_bus.messages WHERE channel = 'default'
	  AND headers IS NOT NULL});

dump_of('postgres', $dump);
dump_of('postgres', $tables, '--schema=message_bus');
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach @databases;

# ----------
# Beside a fresh extension
# ----------

create_bus($node, 'fresh');
query('fresh', 'GRANT EXECUTE ON FUNCTION message_bus.create_channel TO hr');
query('fresh', q{SELECT message_bus.grant_channel('default', 'hr', 'all');
	SELECT message_bus.create_subscription('default', 'default');
	SELECT message_bus.publish('default', '"second"')});
ok(!restore('fresh', $tables), 'tables are restored beside segments of their numbers');
is(query('fresh', "SELECT count(*) FROM message_bus.message_$segment"),
	100, 'the tables are restored');
query('fresh', q{SET ROLE hr; SELECT message_bus.create_channel('salaries')});
is( query('fresh',
		q{SELECT channel_id FROM message_bus.channel WHERE name = 'salaries'}),
	2, 'another channel has the number of theirs');
is(seen('fresh', 'hr', 'salaries', $id), 0, 'and none of their messages, at once');
state('fresh', $segment, 'foreign', 'they are shown as foreign');
is(seen('fresh', 'hr', 'salaries', $id), 0, 'and then, too');
is(seen('fresh', 'hr', 'default', $id), 0, 'nor has the default channel');
is(logged($segment), 1, 'the log says so');
like(
	slurp_file($node->logfile),
	qr/segment $segment of message_bus is foreign.*DETAIL:  It was written by bus [0-9a-f]{32}, none of.*HINT:  To have its messages, restore the whole dump.*drop the tables message_bus\.message_$segment,/s,
	'and what to do');
is( query(
		'fresh', q{
		SELECT message_bus.publish('salaries', '"mine"') > 0;
		SELECT payload FROM message_bus.claim('salaries')}),
	qq{t\n"mine"}, 'the bus goes on');
query('fresh', q{SELECT message_bus.create_channel('third');
	SELECT message_bus.grant_channel('third', 'hr', 'all')});
$node->restart;
bus_ready($node, 'fresh');
is( query(
		'fresh', qq{
		SELECT count(*) FROM message_bus.message_$first;
		SELECT string_agg(payload::text, ' ' ORDER BY id)
		FROM message_bus.claim('default', batch => 100)}),
	qq{3\n"ready?" "second" "ready?"},
	'what others have acked and deleted is that of no message here');
sql_fails($node, 'fresh', "COPY message_bus.ack_$first FROM stdin", '55000',
	qr/cannot copy into table "message_bus\.ack_$first", which is in use/,
	'facts are not copied into a segment that is in use');
state('fresh', $segment, 'foreign', 'after a restart, too');
is(seen('fresh', 'hr', 'salaries', $id), 0, 'and nobody has them');
is(logged($segment), 2, 'the log says it once for each start');

# a dump of that has them, and they are foreign wherever it goes
dump_of('fresh', "$dump.2");
ok(restore('again', "$dump.2", '--exit-on-error'), 'a dump of it is restored');
bus_ready($node, 'again');
state('again', $segment, 'foreign', 'they are foreign there');
is(seen('again', 'hr', 'salaries', $id), 0, 'and nobody has them');
is( query('again',
		q{SELECT payload FROM message_bus.peek('salaries')}),
	'"mine"', 'what the bus itself has written is there');

# ----------
# With channels that come later
# ----------

create_bus($node, 'late');
restore('late', $tables);
state('late', $segment, 'foreign', 'segments without their channels are foreign');
restore('late', $dump, '--data-only', '--table=channel',
	'--table=subscription', '--table=channel_id', '--table=segment');
wait_for(
	'the messages',
	sub {
		query('late',
			q{SELECT count(*) FROM message_bus.peek('orders', max_messages => 1000)}) ==
		  97 + 3;
	});
isnt(
	query('late',
		"SELECT state FROM message_bus.segments WHERE segment_no = $segment"),
	'foreign',
	'until their channels come');
wait_for(
	'what was not acknowledged',
	sub {
		query('late', q{SELECT count(*) FROM message_bus.claim('orders', batch => 1000)}) == 77;
	});
ok(1, 'then all is delivered that is to be');

# ----------
# With other channels of their numbers
# ----------

create_bus($node, 'mixed');
query(
	'mixed', q{
	GRANT EXECUTE ON FUNCTION message_bus.create_channel TO hr;
	SET ROLE hr; SELECT message_bus.create_channel('salaries')});
ok(!restore('mixed', $dump), 'a dump whose channels do not fit');
state('mixed', $segment, 'foreign', 'has segments that are foreign');
is(seen('mixed', 'hr', 'salaries', $id), 0, 'and nobody has their messages');

# some of the channels fit: one was made here with the number of another
create_bus($node, 'early');
query('early', q{ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO somebody});
restore('early', $dump, '--data-only', '--table=channel');
query(
	'early', q{
	DELETE FROM message_bus.channel WHERE channel_id = 2;
	SELECT setval('message_bus.channel_id', 1)});
query(
	'early', q{
	SELECT message_bus.create_channel('salaries');
	SELECT message_bus.grant_channel('salaries', 'hr', 'all')});
restore('early', $tables);
state('early', $segment, 'foreign', 'a segment with messages of one that does not fit');
is(seen('early', 'hr', 'salaries', $id), 0, 'which has none of them');
wait_for(
	'the other segment',
	sub {
		query('early',
			q{SELECT count(*) FROM message_bus.peek('default', max_messages => 1000)
				WHERE payload::text ~ 'secret'}) == 1;
	}) if $other != $segment;
like(
	slurp_file($node->logfile),
	qr/segment $segment of message_bus is foreign.*a channel of another bus has the number of one/s,
	'the log says why');
is( query(
		'early', q{
		SELECT count(*) FROM pg_class WHERE relnamespace = 'message_bus'::regnamespace
			AND has_table_privilege('somebody', oid, 'SELECT')
			AND relname ~ '_[0-9]+$'}),
	0,
	'default privileges give nothing of it away');

# ----------
# A channel that was dropped
# ----------

query('postgres', q{SELECT message_bus.create_channel('last', ttl => '3 days');
	SELECT message_bus.publish('last', '"of the last"');
	SELECT message_bus.drop_channel('last')});
dump_of('postgres', $dump);

# of which the sequence is not restored
my $list = $node->basedir . '/list';
my ($lines) = run_command([ 'pg_restore', '--list', $dump ]);

open my $file, '>', $list or die "$list: $!\n";
print $file map { "$_\n" } grep { !/SEQUENCE SET message_bus channel_id/ } split /\n/, $lines;
close $file;
ok(restore('whole', $dump, '--exit-on-error', "--use-list=$list"), 'a whole dump');
bus_ready($node, 'whole');
wait_for(
	'the messages',
	sub {
		query('whole',
			q{SELECT count(*) FROM message_bus.peek('orders', max_messages => 1000)}) ==
		  100;
	});
is( query('whole',
		q{SELECT count(*) FROM message_bus.segments WHERE state = 'foreign'}),
	0, 'has no segment that is foreign');
is( query(
		'whole', q{
		SELECT message_bus.create_channel('new');
		SELECT channel_id > (SELECT max(channel_id) FROM message_bus.message)
		FROM message_bus.channel WHERE name = 'new';
		SELECT count(*) FROM message_bus.peek('new')}) =~ s/^\n//r,
	"t\n0",
	'and what was dropped gives its number, and its messages, to none');
$node->stop;
done_testing();
