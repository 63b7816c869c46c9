# tests/t/030_kill_backend.t
#
# kill -9 of a backend that is publishing, 20 times.  Segments are kept small,
# so that they are rolled under the load as well.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('kill_backend',
	conf => "fsync = on\nmessage_bus.segment_max_rows = 2000\n");

create_bus($node);
$node->safe_psql('postgres', q{SELECT message_bus.create_channel('load')});
kill_rounds(
	node => $node,
	channel => 'load',
	kill => sub {
		my ($status, $pid) = $node->psql(
			'postgres', q{
			SELECT pid FROM pg_stat_activity
			WHERE application_name = 'crash_load' AND state = 'active'
			ORDER BY random() LIMIT 1});

		return $status == 0 && $pid && kill 9, $pid;
	});

$node->stop;
done_testing();
