# tests/t/029_restored_rows.t
#
# What rows of a restore mean beside those that are here.  Segments of a
# channel with retention acked stay while a restore has not brought their
# channel, and close no segment of another one.  A restored subscription keeps
# its number and nothing of the one that had it here, which gets a new one and
# keeps what it has done.
# What is left of a channel that was never brought is not another's.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('node',
	databases => [qw(old new)],
	conf => "message_bus.worker_interval = 100ms\nmessage_bus.node = 9\n");
my $dump = $node->basedir . '/dump';

# query returns what a query of the new database returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('new', $sql);
}

# restore runs pg_restore into the new database.
sub restore
{
	my ($name, @option) = @_;

	restore_ok($node, 'new', $dump, $name, @option);
	return;
}

# looks waits until the worker has looked some times for what is acked.
sub looks
{
	my $until = query(q{SELECT clock_timestamp() + '2 seconds'});

	wait_for('the worker to look',
		sub { query("SELECT clock_timestamp() > '$until'") eq 't' });
	return;
}

# took claims, acks, and returns what came.
sub took
{
	my ($channel, $subscription, $wait) = @_;

	$wait //= '0';
	return query(
		qq{WITH d AS MATERIALIZED (SELECT * FROM message_bus.claim('$channel',
			'$subscription', 100, wait => '$wait')),
		a AS MATERIALIZED (SELECT message_bus.ack(lease, array_agg(id)) FROM d
			GROUP BY lease)
		SELECT string_agg(payload::text, ' ' ORDER BY id) FROM d, a});
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(old new);
create_bus($node, 'old');
# its channel is the seventh, its subscriptions have the first numbers
$node->safe_psql(
	'old', q{
	SELECT setval('message_bus.channel_id', 6);
	SELECT message_bus.create_channel('orders', retention => 'acked');
	SELECT message_bus.create_subscription('default', 'theirs');
	SELECT message_bus.create_subscription('orders', 'worker');
	SELECT message_bus.create_subscription('orders', 'second');
	SELECT message_bus.create_subscription('default', 'default')});
wait_for(
	'the bus',
	sub {
		($node->psql('old', q{SELECT message_bus.publish('orders', to_json(i))
			FROM generate_series(1, 3) i}))[0] == 0;
	});
my $segment = $node->safe_psql('old',
	q{SELECT segment_no FROM message_bus.segment WHERE channel_id = 7});
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'old'
	],
	'pg_dump');

# a bus at work, above the numbers of the dump
$node->safe_psql(
	'new', q{
	BEGIN;
	CREATE EXTENSION message_bus;
	UPDATE message_bus.server_state SET next_segment = 50 << 5;
	COMMIT});
bus_ready($node, 'new');
query(
	q{SELECT message_bus.create_subscription('default', 'mine');
	  SELECT message_bus.create_channel('other', retention => 'acked')});
is(took('default', 'mine', '10 seconds'), '"ready?"', 'a consumer is at work');
is(took('default', 'default', '10 seconds'), '"ready?"', 'and another');
is( query(
		q{SELECT string_agg((subscription_id & 67108863) || ' ' || name, ' '
			ORDER BY subscription_id) FROM message_bus.subscription}),
	'1 mine 2 default',
	'under the first numbers');
wait_for('a segment of another channel',
	sub { ($node->psql('new', q{SELECT message_bus.publish('other', '1')}))[0] == 0 });

# segments without their channel
restore('the schema', '--schema-only');
restore('the segments', '--data-only', '--table=segment',
	map { "--table=${_}_$segment" } qw(message ack failure event secret));
wait_for(
	'the segment to be closed',
	sub {
		query(qq{SELECT closed_at IS NOT NULL FROM message_bus.segment
			WHERE segment_no = $segment}) eq 't';
	});
looks();
is( query(qq{SELECT count(*) FROM message_bus.segment
		WHERE segment_no = $segment AND channel_id = 7 AND NOT detached
		AND expires_at > clock_timestamp() + interval '1 hour'}),
	1, 'a segment stays while its channel is not there');
is( query(q{SELECT count(*) FROM message_bus.segment s
		JOIN message_bus.channel c USING (channel_id)
		WHERE c.name = 'other' AND s.closed_at IS NULL}),
	1, 'and that of another channel with its series is open');

# subscriptions over those that have their numbers
restore('channels', '--data-only', '--table=channel');
query(q{SELECT message_bus.publish('default', '"again"')});
is(took('default', 'mine'), '"again"', 'it is at work');
query(q{INSERT INTO message_bus.expired SELECT subscription_id, 7, false
	FROM message_bus.subscription WHERE name = 'mine'});
restore('subscriptions', '--data-only',
	map { "--table=$_" } qw(subscription subscription_id channel_id));
is(took('orders', 'worker', '1 second'),
	'1 2 3', 'a restored one is read from its own position at once');
is( query(
		q{SELECT string_agg((subscription_id & 67108863) || ' ' || name, ' '
			ORDER BY subscription_id) FROM message_bus.subscription
		WHERE name <> 'mine'}),
	'1 theirs 2 worker 3 second 4 default',
	'restored ones have their numbers');
is( query(q{SELECT count(*), min(s.subscription_id & 67108863) > 1000, count(m.epoch)
		FROM message_bus.subscription s
		LEFT JOIN message_bus.subscription_made m USING (subscription_id)
		WHERE name = 'mine'}),
	'1|t|1', 'one that was made here has got another');
is( query(q{SELECT name, n FROM message_bus.expired
		JOIN message_bus.subscription USING (subscription_id)}),
	'mine|7', 'with the count of what it has missed');
is(took('default', 'mine', '2 seconds'),
	'', 'with which it keeps what it has acknowledged');
is(took('default', 'theirs', '10 seconds'),
	'"ready?" "again"', 'what that had acknowledged is not done for another one');
query(q{SELECT message_bus.publish('default', '"last"')});
is(took('default', 'mine', '10 seconds'), '"last"', 'and goes on');
is(took('orders', 'second', '10 seconds'),
	'1 2 3', 'nothing is lost for the next one');
wait_for(
	'the segment to go',
	sub {
		query(qq{SELECT count(*) FROM message_bus.segment
			WHERE segment_no = $segment}) == 0;
	});
ok(1, 'a segment goes when all of its channel have acked');

# a channel that is dropped here
query(
	q{SELECT message_bus.create_subscription('other', 's');
	  SELECT message_bus.drop_channel('other')});
wait_for(
	'the segments of a dropped channel to go',
	sub {
		query(q{SELECT count(*) FROM message_bus.segment
			WHERE channel_id = 2}) == 0;
	});
wait_for('it to be forgotten',
	sub { query('SELECT count(*) FROM message_bus.channel_dropped') == 0 });
ok(1, 'those of a channel that is dropped go at once');

# what is left of a channel that was not brought
query(
	q{INSERT INTO message_bus.channel_grant
	  SELECT last_value + 1, 'pg_monitor', true, true FROM message_bus.channel_id;
	  INSERT INTO message_bus.subscription (channel_id, name, owner, ordered)
	  SELECT last_value + 1, 'left', 'pg_monitor', false
	  FROM message_bus.channel_id;
	  SELECT message_bus.create_channel('fresh')});
is( query(
		q{SELECT (SELECT count(*) FROM message_bus.channel_grant g
			WHERE g.channel_id = c.channel_id), (SELECT count(*)
			FROM message_bus.subscription s WHERE s.channel_id = c.channel_id)
		FROM message_bus.channel c WHERE name = 'fresh'}),
	'0|0', 'a new channel has no grants or subscriptions of another');

$node->stop;
done_testing();
