# tests/t/025_merged.t
#
# The default channel, which each bus has under the same number, when what
# several have written comes together: a purge takes what its own bus had, the
# subscription of one name stays, and one that another takes the number of keeps
# what it had acknowledged.

use strict;
use warnings;

use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @databases = qw(postgres merged turned live);
my %node = map {
	$_ => bus_node("node$_", conf => "message_bus.node = $_\n"
		  . "message_bus.worker_interval = 50ms\n", databases => \@databases)
} 1 .. 3;

# query returns what a query of node 3 returns.
sub query
{
	my ($database, $sql) = @_;

	return $node{3}->safe_psql($database, $sql);
}

# restore brings the dumps of nodes into a database of node 3.
sub restore
{
	my ($database, @from) = @_;

	foreach my $n (@from)
	{
		restore_ok($node{3}, $database, $node{$n}->basedir . '/dump',
			"node $n restored into $database");
	}
	return;
}

# peeked waits for a number of messages, and returns them.
sub peeked
{
	my ($database, $number) = @_;
	my $sql = q{SELECT coalesce(string_agg(payload #>> '{}', ' ' ORDER BY payload::text), '')
		FROM message_bus.peek('default', max_messages => 1000)};

	for (1 .. 600)
	{
		last if split(' ', query($database, $sql)) >= $number;
		select undef, undef, undef, 0.1;
	}
	return query($database, $sql);
}

# taken claims from the default channel, acks, and returns what came.
sub taken
{
	my ($database, $subscription, $wait) = @_;

	return query($database,
		qq{WITH d AS MATERIALIZED (SELECT * FROM message_bus.claim('default',
			'$subscription', 100, wait => '$wait')),
		a AS MATERIALIZED (SELECT message_bus.ack(lease, array_agg(id)) FROM d
			GROUP BY lease)
		SELECT coalesce(string_agg(payload #>> '{}', ' ' ORDER BY payload::text), '')
		FROM d, a});
}

# Node 1 keeps three; node 2, whose ids are above, has purged what it had.
bus_at($node{1}, 'postgres', 5);
bus_at($node{2}, 'postgres', 50);
$node{1}->safe_psql('postgres',
	q{SELECT message_bus.purge_channel('default');
	SELECT message_bus.publish('default', to_json('a' || i)) FROM generate_series(1, 3) i;
	SELECT message_bus.ack(lease) FROM message_bus.claim('default', wait => '20 s', batch => 1)});
$node{2}->safe_psql('postgres',
	q{SELECT message_bus.publish('default', '"gone"');
	SELECT message_bus.purge_channel('default');
	SELECT message_bus.publish('default', '"b1"');
	SELECT message_bus.publish('default', '"b2"');
	SELECT message_bus.ack(lease) FROM message_bus.claim('default', wait => '20 s', batch => 1)});
foreach my $n (1, 2)
{
	command_ok(
		[
			'pg_dump', '--format=custom',
			'--file=' . $node{$n}->basedir . '/dump', '--host',
			$node{$n}->host, '--port', $node{$n}->port, 'postgres'
		],
		"pg_dump of node $n");
	$node{$n}->stop;
}
query('postgres', "CREATE DATABASE $_") foreach qw(merged turned live);

restore('merged', 1, 2);
is(peeked('merged', 5), 'a1 a2 a3 b1 b2',
	'each purge takes what its own bus had');
restore('turned', 2, 1);
is(peeked('turned', 5), 'a1 a2 a3 b1 b2', 'in the other order, too');
is( query('turned',
		q{SELECT count(*) FROM message_bus.messages WHERE channel = 'default'}),
	5, 'the views say so');
foreach my $database (qw(merged turned))
{
	is(query($database, 'SELECT count(*) FROM message_bus.subscription'),
		1, 'of two subscriptions of the default channel there is one');
	my $came = '';
	wait_for('what both have left',
		sub {
			$came .= ' ' . taken($database, 'default', '1 s');
			return $came =~ /a2/ && $came =~ /a3/ && $came =~ /b2/;
		});
	ok(1, 'it gets what neither has acknowledged');
	unlike($came, $database eq 'merged' ? qr/a1/ : qr/b1/,
		'and not what the first had');
}
is(query('merged', q{SELECT message_bus.purge_channel('default')}),
	5, 'a purge of the whole takes what is left');
is(peeked('merged', 0), '', 'nothing is left');

# into a bus at work, with ids below and a consumer
bus_at($node{3}, 'live', 3);
query('live', q{SELECT message_bus.purge_channel('default');
	SELECT message_bus.publish('default', to_json('l' || i)) FROM generate_series(1, 2) i;
	SELECT message_bus.create_subscription('default', 'default');
	SELECT message_bus.create_subscription('default', 'x')});
is(taken('live', 'x', '10 s'), 'l1 l2', 'a consumer at work');
restore('live', 2);
is(peeked('live', 4), 'b1 b2 l1 l2',
	'what is here is not taken by a purge that is restored');
my $came = '';
wait_for('all of it',
	sub {
		$came .= ' ' . taken('live', 'default', '1 s');
		return $came =~ /l1/ && $came =~ /l2/ && $came =~ /b2/;
	});
unlike($came, qr/b1/, 'a subscription gets what waited here and there');
is(taken('live', 'x', '10 s'), 'b1 b2', 'the other one goes on');

$node{3}->stop;
done_testing();
