# tests/t/055_delivery_skips.t
#
# Open transactions beside a consumer that polls: what it has skipped takes
# little room, and a subscription that has no more room stops alone.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node(
	'delivery_skips',
	conf => "message_bus.worker_interval = 100ms\n"
	  # 8 nodes of its own, and 4 of the 328 that its database may have
	  . "message_bus.database_share = 1\n"
	  . "message_bus.subscription_share = 1\n");

create_bus($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel(c), message_bus.create_subscription(c, 's')
	FROM unnest('{alone,mixed,calm}'::text[]) c;
	SELECT message_bus.publish(c, '1') FROM unnest('{alone,mixed,calm}'::text[]) c});

my $poller = $node->background_psql('postgres', on_error_stop => 1);
my $other = $node->background_psql('postgres', on_error_stop => 1);

# taken claims what there is, acknowledges it and returns how many they were.
# The settings leave little room for messages at one time, too.
sub taken
{
	my ($channel) = @_;
	my $all = 0;

	while (
		my $n = $poller->query_safe(
			"SELECT coalesce(sum(message_bus.ack(lease)), 0) FROM (SELECT "
			  . "DISTINCT lease FROM message_bus.claim('$channel', 's', 1000)) c"
		))
	{
		$all += $n;
	}
	return $all;
}

sub published
{
	my ($session, $channel) = @_;

	$session->query_safe("SELECT message_bus.publish('$channel', '1')");
}

is(taken($_), 1, "$_: the first message") foreach qw(alone mixed calm);

# one open transaction that publishes row by row, others to other channels
my $open = $node->background_psql('postgres', on_error_stop => 1);

$open->query_safe('BEGIN');
foreach (1 .. 300)
{
	published($open, 'alone');
	published($other, 'calm') if $_ % 3 == 0;
	taken('alone');
}
published($other, 'alone');
is(taken('alone'), 1,
	'300 rows of an open transaction, polled after each, hide nothing');
$open->query_safe('COMMIT');
is(taken('alone'), 300, 'and come when it commits');

# two that publish in turns with a third: more ranges than there is room for
my @open = map { $node->background_psql('postgres', on_error_stop => 1) } 1, 2;
my $got = 0;
my $there = 0;

$_->query_safe('BEGIN') foreach @open;
foreach (1 .. 200)
{
	published($_, 'mixed') foreach @open;
	published($other, 'mixed');
	$there++;
	$got += taken('mixed');
}
cmp_ok($got, '<', $there,
	"a subscription without room stops ($got of $there came)");
cmp_ok($got, '>', 0, 'not before it has used what it may have');
is( $node->safe_psql(
		'postgres', q{
		SELECT channel FROM message_bus.pools
		WHERE pool = 'skipped ranges' AND held >= may_hold}),
	'mixed',
	'the view pools tells which one stands');
is(taken('calm'), 100, 'nobody else notices');
published($other, 'calm');
is(taken('calm'), 1, 'also later');
$_->query_safe('COMMIT') foreach @open;
$got += taken('mixed');
is($got, $there + 400, 'when they have ended all comes, once');

$_->quit foreach ($open, @open, $other, $poller);
$node->stop;
done_testing();
