# tests/t/031_kill_worker.t
#
# kill -9 of the worker, 20 times, while it has segments to open, to close
# and to retire.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = bus_node('kill_worker',
	conf => "fsync = on\n"
	  . "message_bus.segment_max_rows = 500\n"
	  . "message_bus.worker_interval = 50ms\n");

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('load');
	SELECT message_bus.create_channel('short', ttl => '1 second')});
kill_rounds(
	node => $node,
	channel => 'load',
	kill => sub {
		# something that expires soon, so that there is a segment to retire
		my ($status, $pid) = $node->psql(
			'postgres', q{
			SELECT count(message_bus.publish('short', to_json(i)))
			FROM generate_series(1, 10) i;
			SELECT pid FROM pg_stat_activity
			WHERE datname = 'postgres'
			  AND backend_type LIKE 'message_bus%worker%'});

		$pid = ($pid // '') =~ /\n(\d+)$/ ? $1 : 0;
		# the publishing above has just woken the worker: kill it at any
		# moment of its round, not always at the same
		sleep rand 0.06;
		return $status == 0 && $pid && kill 9, $pid;
	});

# what was interrupted is brought to its end
wait_for(
	'the expired segments to be dropped',
	sub {
		my ($status, $out) = $node->psql(
			'postgres', q{
			SELECT message_bus.expire();
			SELECT count(*) FROM message_bus.messages
			WHERE channel = 'short'});

		return $status == 0 && $out =~ /\b0$/;
	});
wait_for(
	'tables and catalog of segments to agree',
	sub {
		return $node->safe_psql(
			'postgres', q{
			SELECT count(*) = 0 FROM
				(SELECT segment_no FROM message_bus.segment) s
				FULL JOIN (SELECT substring(relname from '\d+')::int AS segment_no
					FROM pg_class
					WHERE relnamespace = 'message_bus'::regnamespace
					  AND relname ~ '^message_\d+$') t USING (segment_no)
			WHERE s.segment_no IS NULL OR t.segment_no IS NULL}) eq 't';
	});
is( $node->safe_psql(
		'postgres',
		'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'),
	0,
	'no partition is left half detached');

$node->stop;
done_testing();
