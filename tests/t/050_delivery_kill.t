# tests/t/050_delivery_kill.t
#
# kill -9 of a backend in each state of a delivery.  The server starts anew,
# and what was not committed has not happened.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('delivery_kill');
my $claim = q{SELECT count(*) FROM message_bus.claim(:'c', 's', 2,
	lease_for => '1 hour')};
my $ack = q{SELECT message_bus.ack(max(lease)) FROM message_bus.leases
	WHERE channel = :'c'};
my $nack = q{SELECT message_bus.nack(max(lease), delay => '0')
	FROM message_bus.leases WHERE channel = :'c'};

# what the session does before it is killed, and what is then delivered; of
# three messages two are claimed
my @cases = (
	[ claimed => [ 'BEGIN', $claim ], '1:1 2:1 3:1' ],
	[ claimed_committed => [$claim], '1:1 2:1 3:1' ],
	[ acked => [ $claim, 'BEGIN', $ack ], '1:1 2:1 3:1' ],
	[ acked_with_claim => [ 'BEGIN', $claim, $ack ], '1:1 2:1 3:1' ],
	[ acked_committed => [ $claim, $ack ], '3:1' ],
	[ nacked => [ $claim, 'BEGIN', $nack ], '1:1 2:1 3:1' ],
	[ nacked_committed => [ $claim, $nack ], '1:2 2:2 3:1' ]);

create_bus($node);
foreach my $case (@cases)
{
	my ($channel, $statements, $expected) = @$case;
	my $session;
	my $lease;

	foreach my $ordered ('false', 'true')
	{
		my $c = $channel . ($ordered eq 'true' ? '_ordered' : '');

		$node->safe_psql('postgres',
			"SELECT message_bus.create_channel('$c');"
			  . "SELECT message_bus.create_subscription('$c', 's', "
			  . "ordered => $ordered);"
			  . "SELECT message_bus.publish('$c', to_json(i), "
			  . "key => i::text) FROM generate_series(1, 3) i");
		next if $ordered eq 'false';

		# both are in the same state when it happens
		$session = $node->background_psql('postgres');
		foreach my $statement (@$statements)
		{
			$session->query_safe(
				$statement eq 'BEGIN'
				? 'BEGIN'
				: join ';',
				map { $statement =~ s/:'c'/'$_'/r } $channel, $c);
		}
		$lease = $session->query_safe(
			"SELECT max(lease) FROM message_bus.leases WHERE channel = '$c'");
		session_kill($node, $session, session_pid($session));
		foreach my $name ($channel, $c)
		{
			is(claim_all($node, $name), $expected, "$name: what is delivered");
			is(claim_all($node, $name), '', "$name: and nothing else");
			is( $node->safe_psql(
					'postgres',
					"SELECT count(*) FROM message_bus.leases "
					  . "WHERE channel = '$name'"),
				scalar(my @all = split / /, $expected),
				"$name: all that is out");
		}
		refused($node, $lease, "$c: the lease of before") if $lease;
	}
}

# a claim that waits, and a CALL that does
foreach my $wait (
	q{SELECT message_bus.claim('idle', 's', wait => '10 minutes')},
	q{CALL message_bus.wait(ARRAY['idle'], ARRAY['s'], '10 minutes')})
{
	my ($name) = $wait =~ /(claim|wait)/;
	my $session = $node->background_psql('postgres');
	my $pid = session_pid($session);

	$node->safe_psql(
		'postgres', q{
		SELECT message_bus.create_channel('idle', if_not_exists => true);
		SELECT message_bus.create_subscription('idle', 's',
			if_not_exists => true)});
	$session->query_until(qr/started/, "\\echo started\n$wait;\n");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT wait_event_type = 'Extension' FROM pg_stat_activity "
			  . "WHERE pid = $pid AND query LIKE '%10 minutes%'"),
		"$name: it waits");
	session_kill($node, $session, $pid);
	$node->safe_psql('postgres', q{SELECT message_bus.publish('idle', '7')});
	is(claim_all($node, 'idle'), '7:1', "$name: the channel goes on");
	$node->safe_psql('postgres',
		q{SELECT message_bus.ack(max(lease)) FROM message_bus.leases
		  WHERE channel = 'idle'});
}

$node->stop;
done_testing();
