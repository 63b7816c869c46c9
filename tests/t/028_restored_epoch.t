# tests/t/028_restored_epoch.t
#
# A claim that waits while a restore brings what it waits for: its lease is
# above those that the restore has brought.

use strict;
use warnings;

use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# commits take a while, so that others are served before they have ended
my $node = bus_node('node',
	databases => [qw(old new)],
	conf => "message_bus.worker_interval = 50ms\nfsync = on\n"
	  . "commit_delay = 100000\ncommit_siblings = 0\n");
my $dump = $node->basedir . '/dump';

# restore runs pg_restore into the new database.
sub restore
{
	my ($name, @option) = @_;

	restore_ok($node, 'new', $dump, $name, @option);
	return;
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(old new);
$node->safe_psql(
	'new', q{
	BEGIN;
	CREATE EXTENSION message_bus;
	UPDATE message_bus.server_state SET next_segment = 50 << 5;
	COMMIT});
bus_ready($node, 'new');
# of an epoch of its own, seconds later
my $epoch =
  $node->safe_psql('new', 'SELECT epoch FROM message_bus.server_state');
$node->safe_psql('postgres', 'SELECT pg_sleep(2)');
create_bus($node, 'old');
cmp_ok($node->safe_psql('old', 'SELECT epoch FROM message_bus.server_state'),
	'>', $epoch, 'the epoch of the old bus is above');
$node->safe_psql('old',
	q{SELECT message_bus.create_channel('c', ttl => '3 days', max_attempts => 100,
		backoff => '10 ms', backoff_max => '10 ms');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.publish('c', '1')});
$node->safe_psql('old',
	q{SELECT message_bus.nack(lease) FROM message_bus.claim('c', 's',
		wait => '20 s')});
my $segment = $node->safe_psql('old',
	q{SELECT message_id >> 24 FROM message_bus.failure});
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'old'
	],
	'pg_dump');
restore('the schema', '--schema-only');
restore('channels and subscriptions',
	'--data-only', '--table=channel', '--table=subscription',
	'--table=channel_id', '--table=subscription_id', '--table=segment');

my $claim = $node->background_psql('new');

$claim->query_until(qr/begun/, qq{\\echo begun
SELECT lease FROM message_bus.claim('c', 's', wait => '60 s', lease_for => '1 hour');
});
wait_for(
	'the claim to wait',
	sub {
		$node->safe_psql('postgres',
			q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active'
			AND wait_event_type = 'Extension' AND query LIKE '%claim%'
			AND pid <> pg_backend_pid()}) == 1;
	});
restore('the data', '--data-only',
	map { "--table=${_}_$segment" } qw(ack failure event message secret));
my ($lease) = $claim->query('SELECT 0 AS "end"') =~ /(\d{6,})/;
ok($lease, 'the claim gets it');
is( $node->safe_psql('new', "SELECT $lease > max(lease) FROM message_bus.failure"),
	't',
	'under a lease above those that were restored');
$claim->query_safe("SELECT message_bus.nack($lease)");
$claim->quit;
is( $node->safe_psql('new',
		q{SELECT attempt FROM message_bus.claim('c', 's', wait => '20 s')}),
	3,
	'and when it gives it back it comes again');

$node->stop;
done_testing();
