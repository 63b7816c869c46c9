# tests/t/032_kill_postmaster.t
#
# kill -9 of the postmaster, 20 times: alone, so that its backends notice and
# leave when they are idle, and in every other round together with all of
# them, in the middle of their work.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('kill_postmaster',
	conf => "fsync = on\nmessage_bus.segment_max_rows = 2000\n");

my $round = 0;

create_bus($node);
$node->safe_psql('postgres', q{SELECT message_bus.create_channel('load')});
kill_rounds(
	node => $node,
	channel => 'load',
	kill => sub {
		my @others = $round++ % 2 ? node_processes($node) : ();

		$node->kill9;
		kill 9, @others;
		return 1;
	},
	recover => sub { restart_killed($node) });

$node->stop;
done_testing();
