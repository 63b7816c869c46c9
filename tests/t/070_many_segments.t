# tests/t/070_many_segments.t
#
# Many segments: a publish with a transaction id, a get and a claim take no
# more locks and memory than with few, and a transaction id is unique in its
# channel wherever its first message lies: in an open segment, a closed one, one
# that is entered into an era, after a crash, a restore, and when it is gone.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant SEGMENTS => 150;

# a lock table that has little room beyond what CREATE EXTENSION takes, and
# a worker that looks for segments to enter each half second
my $node = bus_node(
	'many_segments',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 16\n"
	  . "max_locks_per_transaction = 16\nmax_connections = 20\n"
	  . "max_wal_senders = 0\nmax_prepared_transactions = 0\n",
	databases => [ 'postgres', 'restored' ]);

# publish_each publishes numbers, a transaction and a transaction id each.
sub publish_each
{
	my ($channel, $from, $to) = @_;

	$node->safe_psql('postgres', "CALL publish_each('$channel', $from, $to)");
}

# again returns whether publishing the same again gives the same id.
sub again
{
	my ($number, %option) = @_;
	my $database = $option{database} || 'postgres';

	return $node->safe_psql(
		$database, qq{
		SELECT (message_bus.publish('a', to_json($number),
			transaction_id => 't$number'), id)
			= (id, (SELECT id FROM message_bus.get_by_transaction('a', 't$number')))
		FROM first WHERE number = $number}) eq 't';
}

# unentered returns how many closed segments are not entered.
sub unentered
{
	my ($database) = @_;

	return $node->safe_psql(
		$database || 'postgres', q{
		SELECT count(*) FROM message_bus.segment s
		WHERE closed_at IS NOT NULL AND expires_at > clock_timestamp()
			AND NOT EXISTS (SELECT FROM message_bus.segment_era e
				WHERE e.segment_no = s.segment_no)});
}

sub all_entered
{
	my ($database) = @_;

	wait_for('all segments to be entered',
		sub { return unentered($database) == 0 });
}

# eras returns how many eras are in use, and that those that are not are empty.
sub eras
{
	return $node->safe_psql(
		'postgres', q{
		SELECT CASE WHEN bool_and(era_no IS NOT NULL OR pg_relation_size(c.oid) = 0)
			THEN count(era_no) END
		FROM pg_class c LEFT JOIN message_bus.era ON relname = 'era_' || era_no
		WHERE relnamespace = 'message_bus'::regnamespace
			AND relname ~ '^era_[0-9]+$' AND relkind = 'r'});
}

# memory returns what a session's caches have taken more, in kB, when it has
# run a statement.
sub memory
{
	my ($sql) = @_;
	my $used = q{SELECT sum(used_bytes) / 1024 FROM pg_backend_memory_contexts
		WHERE name ~ '^CacheMemory|index info|relation rules|LOCALLOCK'};
	my $session = $node->background_psql('postgres', on_error_stop => 1);
	my ($before, $after);

	$session->query_safe(
		"SELECT message_bus.publish('b', '1', transaction_id => 'warm')");
	$session->query_safe("SELECT count(*) FROM message_bus.peek('b')");
	$session->query_safe("SELECT count(*) FROM message_bus.claim('late', 's')");
	$session->query_safe($used);
	$before = $session->query_safe($used);
	$session->query_safe($sql);
	$after = $session->query_safe($used);
	$session->quit;
	return $after - $before;
}

# locks returns how many locks a statement's transaction holds at its end.
sub locks
{
	my ($sql) = @_;

	return (
		split /\n/,
		$node->safe_psql(
			'postgres', qq{
			BEGIN;
			CREATE TEMP TABLE IF NOT EXISTS result ON COMMIT DROP AS $sql;
			SELECT count(*) FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
			WHERE pid = pg_backend_pid() AND (c.oid IS NULL
				OR relnamespace = 'message_bus'::regnamespace);
			ROLLBACK}))[-1];
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('a');
	SELECT message_bus.create_channel('b');
	SELECT message_bus.create_channel('short', ttl => '5 minutes');
	SELECT message_bus.create_subscription('a', 's');
	SELECT message_bus.create_channel('late');
	SELECT message_bus.create_subscription('late', 's');
	SELECT message_bus.publish('late', '1', delay => '1 second');
	SELECT message_bus.create_channel('passed');
	SELECT message_bus.create_subscription('passed', 's');
	CREATE TABLE passed AS SELECT message_bus.publish('passed', '1', delay => '20 seconds') AS id;
	SELECT count(*) FROM message_bus.claim('passed', 's');
	SELECT message_bus.create_subscription('a', 'again');
	CREATE TABLE first (number int, id bigint);
	CREATE PROCEDURE publish_each(channel text, first int, last int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN first .. last LOOP
			INSERT INTO first VALUES (i, message_bus.publish(channel, to_json(i), transaction_id => 't' || i));
			COMMIT;
			-- what fills the segment up
			PERFORM message_bus.publish_batch('b', '[{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1},{"payload":1}]');
			COMMIT;
		END LOOP;
	END $$});
publish_each('a', 1, SEGMENTS);
cmp_ok(
	$node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.segment'),
	'>=', SEGMENTS / 2, 'there are many segments');

# a rival in a segment that is open, closed, entered
all_entered();
cmp_ok(eras(), '>=', 1, 'they are entered into an era');
cmp_ok(eras(), '<=', 3, 'not into many');
ok(again($_), "number $_ is a duplicate") foreach (1, 77, SEGMENTS);
sql_fails(
	$node, 'postgres',
	q{SELECT message_bus.publish('a', '"other"', transaction_id => 't1')},
	'23505', qr/has other bytes/, 'other bytes are refused');
is( $node->safe_psql(
		'postgres', q{
		SELECT message_bus.publish('b', '1', transaction_id => 't1')
			IN (SELECT id FROM first)}),
	'f',
	'the same id in another channel is another one');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.get_by_transaction('a', 'never')}),
	0,
	'an id that was never used is not found');

# delays, and a cursor that is in the newest segment then
is(claim_all($node, 'late'), '1:1',
	'a delayed message in a segment that is entered comes');
publish_some($node, 'late', 1);
is(claim_all($node, 'late'), '1:1', 'and so does one in an open one');

# a delayed message that the cursor has passed comes from a segment that is
# entered, and from no other place
is( $node->safe_psql(
		'postgres', q{
		SELECT delayed FROM message_bus.segment_era, passed
		WHERE segment_no = id >> 24}),
	't',
	'a segment that is entered knows of its delayed message');
wait_for('a delayed message that was passed', sub { claim_all($node, 'passed') eq '1:1' });
pass('a delayed message that was passed comes when it is due');

# failures in many segments, with gaps between: all come again, and once more
# those that fail again, also where a batch has not room for all
my @retried;
wait_for(
	'what has failed in many segments',
	sub {
		push @retried, split ' ', $node->safe_psql('postgres', q{
			SELECT string_agg(payload::text, ' ') FILTER (WHERE attempt > 1)
			FROM message_bus.claim('a', 'again', 10) c,
				LATERAL (SELECT CASE
					WHEN attempt = 1 AND payload::text::int % 4 = 0
						OR attempt = 2 AND payload::text::int % 8 = 0
					THEN message_bus.nack(lease, ARRAY[id], delay => '2 seconds')
					ELSE message_bus.ack(lease, ARRAY[id]) END) a});
		return @retried >= int(SEGMENTS / 4) + int(SEGMENTS / 8);
	});
is( join(' ', sort { $a <=> $b } @retried),
	join(
		' ',
		sort { $a <=> $b } (
			(grep { $_ % 4 == 0 } 1 .. SEGMENTS),
			(grep { $_ % 8 == 0 } 1 .. SEGMENTS))),
	'what has failed in many segments comes again, and again');

# what it costs
cmp_ok(
	memory("SELECT message_bus.publish('a', '1', transaction_id => 'new')"),
	'<', 500, 'memory of a publish with a transaction id');
cmp_ok(
	memory("SELECT count(*) FROM message_bus.get_by_transaction('a', 'none')"),
	'<', 500,
	'memory of a get by a transaction id');
cmp_ok(
	memory(
		q{SELECT message_bus.publish('late', '2', delay => '1 millisecond');
		SELECT pg_sleep(0.1);
		SELECT count(*) FROM message_bus.claim('late', 's')}),
	'<',
	500,
	'memory of a claim that looks for delayed messages');
cmp_ok(
	memory(
		q{SELECT message_bus.publish('b', '2');
		SELECT message_bus.nack(lease, delay => '1 millisecond')
			FROM message_bus.claim('late', 's');
		SELECT count(*) FROM message_bus.claim('late', 's')}),
	'<',
	500,
	'memory of a nack, and of a claim that looks for retries');
cmp_ok(locks($_->[1]), '<=', 20, "locks of a $_->[0]")
  foreach (
	[
		'publish',
		"SELECT message_bus.publish('a', '1', transaction_id => 'locks')"
	],
	[ 'get', "SELECT * FROM message_bus.get_by_transaction('a', 't3')" ],
	[ 'claim', "SELECT * FROM message_bus.claim('a', 's')" ],
	[
		'nack',
		"SELECT message_bus.nack(lease) FROM message_bus.claim('a', 's')"
	]);

# a crash empties the eras: the segments are looked into until they are
# entered anew
$node->stop('immediate');
$node->start;
bus_ready($node);
ok(again($_), "after a crash number $_ is a duplicate")
  foreach (1, 77, SEGMENTS);
all_entered();
ok(again($_), "and when all is entered anew") foreach (1, 77, SEGMENTS);
cmp_ok(eras(), '<=', 3, 'eras of before the crash are free');
$node->restart;
bus_ready($node);
is($node->safe_psql('postgres', 'SELECT count(*) > 100 FROM message_bus.segment_era'),
	't', 'a restart leaves them');
ok(again(5), 'and what is in them is found');

# segments that go
$node->safe_psql('postgres', "CALL publish_each('short', 301, 303)");
all_entered();
$node->safe_psql(
	'postgres', q{
	UPDATE message_bus.segment SET expires_at = clock_timestamp()
	WHERE segment_no <> (SELECT max(segment_no) FROM message_bus.segment)
		AND closed_at IS NOT NULL;
	SELECT message_bus.expire()});
is($node->safe_psql('postgres', "SELECT count(*) FROM message_bus.get_by_transaction('a', 't1')"),
	0, 'a transaction id goes with its segment');
ok($node->safe_psql('postgres',
	"SELECT message_bus.publish('a', '\"other\"', transaction_id => 't1')") > 0,
	'and can be used again');
wait_for('eras to go', sub { return eras() <= 1 });
pass('eras go with their segments');

# a restore brings no era, and knows the ids all the same
publish_each('a', 201, 210);
all_entered();
my $dump = $node->basedir . '/dump';
$node->safe_psql('postgres', 'DROP PROCEDURE publish_each');
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'postgres'
	],
	'pg_dump');
unlike(
	scalar `pg_restore --list '$dump'`,
	qr/TABLE DATA message_bus (segment_)?era/,
	'no era is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok(
	[
		'pg_restore', '--exit-on-error', '--host', $node->host,
		'--port', $node->port, '--dbname', 'restored', $dump
	],
	'pg_restore');
bus_ready($node, 'restored');
ok(again($_, database => 'restored'), "number $_ is a duplicate there")
  foreach (201, 210);
all_entered('restored');
ok(again($_, database => 'restored'), "and when it is entered")
  foreach (201, 210);

$node->stop;
done_testing();
