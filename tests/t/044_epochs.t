# tests/t/044_epochs.t
#
# The extension is dropped and created more often than the clock has seconds
# (which are ten here), and the server restarted: no lease comes twice.

use strict;
use warnings;

use MessageBus::Clock;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node =
  clock_node('epochs', slow => 10, databases => [ 'postgres', 'b' ]);
my (%lease, $highest);

# claimed claims what create_bus has published, and returns the lease.
sub claimed
{
	return $node->safe_psql($_[0],
		q{SELECT lease FROM message_bus.claim('default', lease_for => '1 hour')}
	);
}

# begun_anew drops the extension and creates it, and returns a lease.
sub begun_anew
{
	my ($restart) = @_;

	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS message_bus');
	if ($restart)
	{
		$node->stop;
		clock_start($node);
	}
	create_bus($node);
	return claimed('postgres');
}

$lease{ begun_anew() } = $_ foreach 1 .. 4;
is(scalar keys %lease, 4, 'each extension has its own leases');
($highest) = sort { $b <=> $a } keys %lease;
cmp_ok(begun_anew(1), '>', $highest, 'a restart forgets none of them');
sql_fails(
	$node, 'postgres',
	"SELECT message_bus.ack($_)",
	'55000', qr/lease $_ is not held/,
	"the lease of round $lease{$_} acks nothing")
  foreach sort { $a <=> $b } keys %lease;

# another database of the same name
my $last = 0;
foreach my $round (1, 2)
{
	$node->safe_psql('postgres', 'CREATE DATABASE b');
	if ($round == 2)
	{
		$node->stop;
		clock_start($node);
	}
	create_bus($node, 'b');
	my $next = claimed('b');
	cmp_ok($next, '>', $last, 'a database of the same name has its own');
	$last = $next;
	$node->safe_psql('postgres', 'DROP DATABASE b WITH (FORCE)');
}

# a restart goes on above
$highest = 0;
foreach my $round (1 .. 3)
{
	bus_ready($node);
	my $next = claimed('postgres');
	cmp_ok($next, '>', $highest, 'leases grow over restarts');
	$highest = $next;
	$node->stop('immediate');
	clock_start($node);
}

$node->stop;
done_testing();
