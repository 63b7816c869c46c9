# tests/t/054_delivery_quotas.t
#
# Who takes much of the pools stops himself only: each subscription and each
# database has its quota, and something is left for the others.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node(
	'delivery_quotas',
	databases => [ 'postgres', 'other' ],
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.max_leases = 4096\n"
	  . "message_bus.channel_share = 100\n"
	  . "message_bus.holder_share = 100\n"
	  . "message_bus.max_subscriptions = 64\n");

$node->safe_psql('postgres', 'CREATE DATABASE other');
create_bus($node, $_) foreach ('postgres', 'other');
foreach my $database ('postgres', 'other')
{
	$node->safe_psql(
		$database, q{
		SELECT message_bus.create_channel('c');
		SELECT message_bus.create_subscription('c', s)
		FROM unnest('{greedy,meek,late}'::text[]) s;
		SELECT message_bus.create_subscription('c', 'g' || i)
		FROM generate_series(1, 8) i;
		SELECT count(message_bus.publish('c', '1'))
		FROM generate_series(1, 5000) i});
}

# claimed claims and returns how many it got, -1 if it was refused by name.
sub claimed
{
	my ($database, $subscription, $batch, $channel) = @_;
	my ($status, $out, $err);

	$channel ||= 'c';
	($status, $out, $err) = $node->psql($database,
		"SELECT count(*) FROM message_bus.claim('$channel', "
		  . "'$subscription', $batch, lease_for => '7 days')");
	return $out if $status == 0;
	return -1
	  if $err =~ /too many messages are claimed from subscription "$subscription" of channel "$channel".*holds \d+ messages and may hold \d+.*max_leases/s;
	return $err;
}

# held tells what a subscription holds, or a database ('').
sub held
{
	my ($subscription, $column) = @_;

	$column ||= 'held';
	return $node->safe_psql('postgres',
		"SELECT coalesce(sum($column), 0) FROM message_bus.pools "
		  . "WHERE pool = 'messages' AND database = 'postgres' "
		  . "AND coalesce(subscription, '') = '$subscription' "
		  . "AND role IS NULL AND (channel IS NULL OR subscription IS NOT NULL)");
}

# one subscription that takes what it can get
my @greedy = map { claimed('postgres', 'greedy', 1000) } 1 .. 7;

is($greedy[0], 1000, 'the first claim gets all that it asks for');
is($greedy[6], -1, 'one that holds too much is refused, by its name');
cmp_ok(scalar(grep { $_ > 0 && $_ < 1000 } @greedy),
	'==', 1, 'before that, a claim gets what is left');
cmp_ok(held('greedy'), '<', 2048, 'it has not got half of the pool');
is(held('greedy', 'may_hold'), held('greedy'), 'the view says the bound');
is(claimed('postgres', 'meek', 500), 500, 'others do not notice');
is(claimed('other', 'greedy', 500), 500, 'nor another database');
is( $node->safe_psql(
		'postgres', q{
		SELECT sum(message_bus.ack(lease)) > 1000
		FROM (SELECT DISTINCT lease FROM message_bus.leases
			WHERE subscription = 'greedy') l}),
	't',
	'what it holds can be acked');
is(held('greedy'), 0, 'it holds nothing then');
cmp_ok(claimed('postgres', 'greedy', 100), '==', 100, 'and may claim again');

# many that take what they can get: what is left is never nothing
foreach my $n (1 .. 8)
{
	while (claimed('postgres', "g$n", 1000) > 0) { }
}
cmp_ok(held(''), '<', 3500, 'a database has not got everything');
is(claimed('postgres', 'late', 5),
	5, 'who comes last in it gets what is kept for it');
is(claimed('other', 'meek', 50), 50, 'another database does not notice');

# entries that a seek has made void count until their transaction ends
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease)
	FROM (SELECT DISTINCT lease FROM message_bus.leases) l});
my @open;
foreach my $n (1 .. 3)
{
	my $session = $node->background_psql('postgres');

	$session->query_safe(
		"BEGIN; SELECT FROM message_bus.claim('c', 'meek', 100)");
	push @open, $session;
	$node->safe_psql('postgres',
		q{SELECT message_bus.seek('c', 'meek', 'earliest')});
}
is(held('meek'), 300, 'what open transactions hold is counted after a seek');
$_->query_safe('ROLLBACK') foreach @open;
$_->quit foreach @open;
is(held('meek'), 0, 'until they end');

# slots: more subscriptions than there are, in one database
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('many');
	SELECT message_bus.create_subscription('many', i::text)
	FROM generate_series(1, 150) i;
	SELECT message_bus.publish('many', '1'), message_bus.publish('many', '2')});
my ($served, $again) = (0, 0);

foreach my $i (1 .. 150)
{
	$served++
	  if $node->safe_psql('postgres',
		"SELECT message_bus.ack(lease) FROM message_bus.claim('many', '$i')")
	  == 1;
}
is($served, 150, 'each of more subscriptions than slots is served');
foreach my $i (1 .. 40)
{
	my $got = $node->safe_psql('postgres',
		"SELECT string_agg(payload || ':' || attempt, ' ') "
		  . "FROM message_bus.claim('many', '$i', 10)");

	$again++ if $got eq '2:1';
}
is($again, 40,
	'one that was given up goes on where it was: nothing twice, nothing lost'
);
is(claimed('other', 'late', 1), 1, 'slots are left for the other database');
is( $node->safe_psql(
		'postgres', q{
		SELECT held <= may_hold AND held < 64 FROM message_bus.pools
		WHERE pool = 'subscriptions' AND database = 'postgres'}),
	't',
	'as the view says');

# slots that hold something are not given up
my ($held_back, $refused) = (0, 0);

foreach my $i (41 .. 150)
{
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT count(*) FROM message_bus.claim('many', '$i', 1, "
		  . "lease_for => '1 hour')");

	$held_back++ if $status == 0 && $out == 1;
	if ($err =~ /too many subscriptions are in use.*has \d+ of them in use and may have \d+/s)
	{
		$refused = 1;
		last;
	}
}
ok($refused, 'where all hold something, the next is refused');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.leases WHERE channel = 'many'}),
	40 + $held_back,
	'and nobody has lost a lease');
is(claimed('other', 'g1', 1), 1, 'the other database still does not notice');

$node->stop;
done_testing();
