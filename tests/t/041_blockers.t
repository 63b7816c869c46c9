# tests/t/041_blockers.t
#
# A segment that an open transaction keeps from being dropped keeps no other
# one, and does not hold up what the worker does for others.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = bus_node('blockers',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 100\n");

# stored returns how many messages of a channel take up space.
sub stored
{
	my ($channel) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM message_bus.message JOIN message_bus.channel "
		  . "USING (channel_id) WHERE name = '$channel'");
}

# publish_some publishes to a channel, so that it has a few segments.
sub publish_some
{
	my ($channel) = @_;

	$node->safe_psql('postgres',
		"SELECT count(message_bus.publish('$channel', '1')) "
		  . "FROM generate_series(1, 300)");
}

# consume acknowledges all of a channel.
sub consume
{
	my ($channel) = @_;

	wait_for(
		"all of $channel to be acked",
		sub {
			return $node->safe_psql('postgres',
				"SELECT count(message_bus.ack(lease, ARRAY[id])) FROM "
				  . "message_bus.claim('$channel', batch => 1000)") == 0;
		});
}

create_bus($node);
foreach my $i (1 .. 4)
{
	$node->safe_psql(
		'postgres', qq{
		SELECT message_bus.create_channel('a$i', retention => 'acked');
		SELECT message_bus.create_subscription('a$i', 'default');
		SELECT message_bus.create_subscription('a$i', 'other')});
	publish_some("a$i");
	$node->safe_psql('postgres',
		"SELECT message_bus.drop_subscription('a$i', 'other')")
	  if $i > 1;
}

# one message of the first channel is claimed in a transaction that stays
# open, and all else is acked
my $reader = $node->background_psql('postgres');

$reader->query_safe(
	q{BEGIN; SELECT count(*) FROM message_bus.claim('a1', 'other')});
consume("a$_") for 1 .. 4;
$node->safe_psql('postgres',
	q{SELECT message_bus.drop_subscription('a1', 'other')});
foreach my $i (2 .. 4)
{
	ok( $node->poll_query_until(
			'postgres', qq{
			SELECT count(*) < 100 FROM message_bus.message
			JOIN message_bus.channel USING (channel_id)
			WHERE name = 'a$i'}),
		"the segments of a$i are dropped beside an open claim");
}
cmp_ok(stored('a1'), '>', 0, 'the segment that the claim has read stays');
wait_for('all others of its channel to be dropped',
	sub { stored('a1') < 200 });
cmp_ok(stored('a1'), '>', 0, 'and it alone stays');

# it is in the way, but nobody waits
my $slowest = 0;

foreach my $i (1 .. 20)
{
	my $start = time;

	$node->safe_psql('postgres',
		"SELECT message_bus.create_channel('c$i', ttl => '$i hours'); "
		  . "SELECT message_bus.publish('c$i', '1')");
	$slowest = time - $start if time - $start > $slowest;
}
cmp_ok($slowest, '<', 1, 'publishing to a new series does not wait for it');
note("slowest: $slowest s");

# a reader of the parent keeps what is detached after it, as it may look at
# it, and no longer than it is there
$node->safe_psql('postgres',
	q{SELECT message_bus.create_channel('short', ttl => '1 second')});
publish_some('short');
my $views = $node->background_psql('postgres');

$views->query_safe(q{BEGIN; SELECT count(*) FROM message_bus.message});
sleep 2;
is( $views->query_safe(
		q{SELECT count(*) FROM message_bus.message JOIN message_bus.channel
		  USING (channel_id) WHERE name = 'short'}),
	300,
	'a reader of the parent keeps what it may look at');
$views->query_safe('COMMIT');
wait_for('its segments to be dropped beside the open claim',
	sub { stored('short') == 0 });
$views->quit;
$reader->query_safe('COMMIT');
wait_for('all to be dropped', sub { stored('a1') < 100 });
$reader->quit;

is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.worker_status
		  WHERE last_error IS NOT NULL}),
	0,
	'the worker had no error');
$node->stop;
done_testing();
