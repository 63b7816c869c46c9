# tests/t/lib/MessageBus/Delivery.pm
#
# What the tests of delivery share: claims in one line, sessions that are
# killed, and what the tables say.

package MessageBus::Delivery;

use strict;
use warnings;

use Exporter 'import';
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(publish_some claim_all lease_of session_pid session_kill
  crash_over refused done_count checkpoint_has);

# publish_some publishes numbers from 1 on.
sub publish_some
{
	my ($node, $channel, $count) = @_;

	$node->safe_psql('postgres',
		"SELECT count(message_bus.publish('$channel', to_json(i))) "
		  . "FROM generate_series(1, $count) i");
}

# claim_all claims, and returns payload:attempt of each message by payload.
sub claim_all
{
	my ($node, $channel, %option) = @_;
	my $batch = $option{batch} || 1000;
	my $for = $option{lease_for} || '1 hour';
	my $subscription = $option{subscription} || 's';

	return $node->safe_psql('postgres',
		"SELECT string_agg(payload || ':' || attempt, ' ' "
		  . "ORDER BY (payload #>> '{}')::int) "
		  . "FROM message_bus.claim('$channel', '$subscription', $batch, "
		  . "lease_for => '$for')");
}

# lease_of returns the number of the lease that a channel's message is out
# under, any of them.
sub lease_of
{
	my ($node, $channel) = @_;

	return $node->safe_psql('postgres',
		"SELECT max(lease) FROM message_bus.leases WHERE channel = '$channel'");
}

# session_pid returns the process id of a session's backend.
sub session_pid
{
	my ($session) = @_;

	return $session->query_safe('SELECT pg_backend_pid()');
}

# session_kill kills a session's backend, and waits until the server has
# come back from that.
sub session_kill
{
	my ($node, $session, $pid) = @_;

	kill 9, $pid;
	crash_over($node, $pid);
	eval { $session->quit };
}

# crash_over waits until the server takes messages after a crash.
sub crash_over
{
	my ($node, $pid) = @_;

	wait_for('the end of the killed process', sub { !-e "/proc/$pid/exe" })
	  if $pid;
	bus_ready($node);
}

# refused checks that an ack is refused as stale.
sub refused
{
	my ($node, $lease, $name) = @_;

	sql_fails($node, 'postgres', "SELECT message_bus.ack($lease)",
		'55000', qr/lease $lease is not held/, $name);
}

# done_count returns how many messages a channel's subscriptions are done with.
sub done_count
{
	my ($node, $channel) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT coalesce(sum(n), 0)
		FROM message_bus.ack JOIN message_bus.subscription USING (subscription_id)
		JOIN message_bus.channel USING (channel_id)
		WHERE channel.name = '$channel'});
}

# checkpoint_has waits until the checkpoint of a channel's subscription knows
# of a lease.
sub checkpoint_has
{
	my ($node, $channel, $lease) = @_;

	wait_for(
		'a checkpoint',
		sub {
			return $node->safe_psql(
				'postgres', qq{
				SELECT count(*) FROM message_bus.checkpoint p
				JOIN message_bus.subscription USING (subscription_id)
				JOIN message_bus.channel USING (channel_id)
				WHERE channel.name = '$channel' AND $lease = ANY (p.leases)})
			  > 0;
		});
	# the worker's commits are asynchronous; a crash is to find this one
	$node->safe_psql('postgres', 'CHECKPOINT');
}

1;
