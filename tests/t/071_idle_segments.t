# tests/t/071_idle_segments.t
#
# A channel with retention acked, little traffic and nobody who consumes keeps
# one segment for long; when all is acknowledged and nobody publishes its
# space is given back.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = bus_node('idle_segments',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.acked_idle = 1s\n"
	  . "message_bus.segment_interval = 0\n");

# segments returns how many segments a channel has.
sub segments
{
	my ($channel) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT count(*) FROM message_bus.segment
		JOIN message_bus.channel USING (channel_id)
		WHERE name = '$channel'});
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel(c, ttl => '30 days', retention => 'acked'),
			message_bus.create_subscription(c, 's')
		FROM unnest(ARRAY['acked', 'consumed']) c});

# each is idle for longer than acked_idle between two messages
publish_some($node, 'consumed', 1);
is(claim_all($node, 'consumed'), '1:1', 'one channel is consumed');
$node->safe_psql('postgres',
	'SELECT message_bus.ack(' . lease_of($node, 'consumed') . ')');
for my $i (1 .. 4)
{
	publish_some($node, 'acked', 1);
	sleep 2.5;
}
is(segments('consumed'), 0, 'its space is returned');
is(segments('acked'), 1, 'what nobody consumes is in one segment');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM message_bus.segment
		JOIN message_bus.channel USING (channel_id)
		WHERE name = 'acked' AND closed_at IS NULL}),
	1,
	'that is open');

is( $node->safe_psql(
		'postgres', q{SELECT sum(message_bus.ack(lease)) FROM
		(SELECT DISTINCT lease FROM message_bus.claim('acked', 's', 100)) AS l}),
	4,
	'all is consumed');
wait_for('the segment to go', sub { return segments('acked') == 0 });
pass('then its space is returned, long before its window is over');

$node->stop;
done_testing();
