# tests/t/042_locks.t
#
# Locks that others hold on the bus's tables, and a large table that is to be
# read after a crash: the worker goes on serving.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = bus_node('locks',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "log_min_duration_statement = 500\n");
my $series = 0;
my $warm = 0;

# query returns what a query returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# published_within publishes to a channel whose series has no segment, and
# checks how long that took.
sub published_within
{
	my ($seconds, $name) = @_;
	my $start;
	my $id;

	$series++;
	query("SELECT message_bus.create_channel('n$series', "
		  . "ttl => '1 hour', retention => 'acked')");
	$start = time;
	$id = query("SELECT message_bus.publish('n$series', '1')");
	cmp_ok(time - $start, '<', $seconds, "$name: a first publish is quick");
	note(sprintf '%.3f s', time - $start);
	return $id;
}

# expires_in_time claims with a short lease, and checks that another claim
# gets the message soon after its end.
sub expires_in_time
{
	my ($name) = @_;
	my $channel = 'warm' . ++$warm;
	my $start;

	query(
		"SELECT id FROM message_bus.claim('$channel', lease_for => '500 ms')");
	$start = time;
	is( query("SELECT attempt FROM message_bus.claim('$channel', "
			  . "wait => '20 seconds')"),
		2,
		"$name: a lease ends");
	cmp_ok(time - $start, '<', 3, "$name: in time");
	note(sprintf '%.3f s', time - $start);
}

create_bus($node);
query("SELECT message_bus.create_channel('warm$_', ttl => '2 hours', "
	  . "backoff => '0'); SELECT message_bus.publish('warm$_', '1'); "
	  . "SELECT message_bus.create_subscription('warm$_', 'default')")
  for 1 .. 6;

my $holder = $node->background_psql('postgres');

# what an administrator may hold
foreach my $lock (
	'ANALYZE message_bus.message',
	'LOCK TABLE message_bus.message IN SHARE UPDATE EXCLUSIVE MODE',
	'LOCK TABLE ONLY message_bus.event, ONLY message_bus.ack, '
	. 'ONLY message_bus.failure IN SHARE ROW EXCLUSIVE MODE',
	'LOCK TABLE ONLY message_bus.failure IN EXCLUSIVE MODE')
{
	my $first = query('SELECT count(*) FROM message_bus.unattached');
	my $id;

	$holder->query_safe("BEGIN; $lock");
	$id = published_within(2, $lock);
	is(query("SELECT payload FROM message_bus.get($id)"),
		1, "$lock: the message can be read");
	is(query("SELECT count(*) FROM message_bus.peek('n$series')"),
		1, "$lock: and peeked at");
	is( query("SELECT id FROM message_bus.claim('n$series', wait => '9 s'), "
			  . 'message_bus.ack(lease)'),
		$id,
		"$lock: it is claimed and acked");
	is( query("SELECT publish = $id FROM message_bus.publish('n$series', "
			  . "'1', transaction_id => 't')"),
		'f',
		"$lock: one with a transaction id is published");
	is( query("SELECT count(DISTINCT publish) FROM (SELECT "
			  . "message_bus.publish('n$series', '1', transaction_id => 't') "
			  . 'FROM generate_series(1, 2)) t'),
		1,
		"$lock: and known again");
	expires_in_time($lock);
	$holder->query_safe('COMMIT');
	wait_for("$lock: the segment to be attached",
		sub { query('SELECT count(*) FROM message_bus.unattached') == 0 });
	is( query("SELECT count(*) FROM message_bus.messages WHERE id >= $id "
			  . "AND channel = 'n$series'"),
		2,
		"$lock: then the views show its messages");
}

# a locked table of one segment keeps its own leases alone
query(q{SELECT message_bus.create_channel('other', ttl => '30 days',
	backoff => '0');
	SELECT message_bus.publish('other', '1')});
my $leaf = query(q{SELECT 'message_bus.failure_' || (id >> 24)
	FROM message_bus.messages WHERE channel = 'other'});
$holder->query_safe("BEGIN; LOCK TABLE $leaf IN SHARE MODE");
query(q{SELECT id FROM message_bus.claim('other', lease_for => '100 ms')});
sleep 0.5;
expires_in_time('beside a lease that cannot be ended');
published_within(2, 'beside a lease that cannot be ended');
$holder->query_safe('COMMIT');
is( query(q{SELECT attempt FROM message_bus.claim('other',
	wait => '20 seconds')}),
	2,
	'which ends when it can');

# one that is in use is followed by another one
$holder->query_safe('BEGIN; ANALYZE message_bus.message');
published_within(2, 'in use');
my $publisher = $node->background_psql('postgres');
$publisher->query_safe(
	"BEGIN; SELECT message_bus.publish('n$series', '\"open\"')");
$holder->query_safe('COMMIT');
wait_for('another segment of the series',
	sub {
		query("SELECT count(*) FROM message_bus.segments WHERE state = 'open' "
			  . 'AND segment_no NOT IN (SELECT segment_no FROM '
			  . 'message_bus.unattached) AND series = (SELECT series FROM '
			  . "message_bus.channel WHERE name = 'n$series')") == 1;
	});
is(query('SELECT count(*) FROM message_bus.unattached'),
	1, 'the one before waits for its publisher');
is( query('SELECT state FROM message_bus.segments JOIN message_bus.unattached '
		  . 'USING (segment_no)'),
	'closed',
	'and is closed');
$publisher->query_safe('COMMIT');
wait_for('it to be attached',
	sub { query('SELECT count(*) FROM message_bus.unattached') == 0 });
is( query("SELECT count(*) FROM message_bus.messages "
		  . "WHERE channel = 'n$series'"),
	2,
	'both messages are shown');

# one that expires before it is attached is dropped
$holder->query_safe('BEGIN; ANALYZE message_bus.message');
query(q{SELECT message_bus.create_channel('short', ttl => '1 second')});
my $short = query(q{SELECT message_bus.publish('short', '1')}) >> 24;
is(query("SELECT count(*) FROM message_bus.unattached"),
	1, 'a segment of short messages is not attached');
sleep 1.2;
query('SELECT message_bus.expire()');
wait_for('it to be dropped beside the lock',
	sub {
		query("SELECT to_regclass('message_bus.message_$short') IS NULL") eq
		  't';
	});
is(query('SELECT count(*) FROM message_bus.unattached'),
	0, 'and nothing of it is left');

# after a crash beside an unattached segment
query(q{SELECT message_bus.create_channel('crash', ttl => '3 days')});
my $crash = published_within(2, 'before a crash');
$publisher->quit;
$holder->quit;
$node->stop('immediate');
$node->start;
bus_ready($node);
is(query("SELECT payload FROM message_bus.get($crash)"),
	1, 'after a crash the message is there');
wait_for('its segment to be attached after a crash',
	sub { query('SELECT count(*) FROM message_bus.unattached') == 0 });

# a table that is read in pieces
query(q{SELECT message_bus.create_channel('big', ttl => '5 days');
	SELECT count(message_bus.publish('big', (SELECT to_json(string_agg(md5((i * 100 + k)::text), ''))
			FROM generate_series(1, 40) k),
		ttl => CASE i WHEN 6000 THEN interval '4 days'
			ELSE interval '1 day' END))
	FROM generate_series(1, 12000) i});
my $big = query(q{SELECT min(id) >> 24 FROM message_bus.messages
	WHERE channel = 'big'});
cmp_ok(query("SELECT pg_relation_size('message_bus.message_$big') / 8192"),
	'>', 512, 'a table of many blocks');
$node->stop('immediate');
$node->start;
bus_ready($node);
wait_for('the large segment to be closed',
	sub {
		query("SELECT closed_at IS NOT NULL FROM message_bus.segment "
			  . "WHERE segment_no = $big") eq 't';
	});
is( query("SELECT s.expires_at = (SELECT max(m.expires_at) "
		  . "FROM message_bus.message_$big m) "
		  . "AND s.expires_at > clock_timestamp() + interval '3 days' "
		  . "FROM message_bus.segment s WHERE segment_no = $big"),
	't',
	'with the last expiry in it, after it was read in pieces');

$node->stop;
done_testing();
