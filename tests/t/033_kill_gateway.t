# tests/t/033_kill_gateway.t
#
# kill -9 of the gateway, 20 times, under load over WebSockets.  It owns no
# truth: what it acknowledged is there, and a new one serves at once.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('kill_gateway', conf => "fsync = on\n");
my $gateway;

create_bus($node);
$node->safe_psql(
	'postgres', q{
	CREATE ROLE authenticated;
	CREATE ROLE message_bus_gateway LOGIN IN ROLE authenticated;
	GRANT EXECUTE ON FUNCTION message_bus.relay TO message_bus_gateway;
	SELECT message_bus.create_channel('load');
	SELECT message_bus.grant_channel('load', 'authenticated', 'publish')});
$gateway = gateway_start($node, 'postgres');
kill_rounds(
	node => $node,
	channel => 'load',
	command => [
		'node', "$ENV{MBUS_TREE}/tests/crash/ws_load.js",
		"ws://127.0.0.1:$gateway->{port}", 'load', 'LEDGER', 8 ],
	kill => sub { gateway_stop($gateway, 'KILL'); return 1 },
	recover => sub {
		$gateway =
		  gateway_start($node, 'postgres', port => $gateway->{port});
	});
is(gateway_stop($gateway), 0, 'the last gateway ends well upon SIGTERM');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity
		  WHERE usename = 'message_bus_gateway'
			AND state <> 'idle' AND state_change < now() - interval '5 s'}),
	0,
	'no connection of a killed gateway is left at work');

$node->stop;
done_testing();
