# tests/t/082_log_kill.t
#
# kill -9 of the worker and of the whole server, in turn, while the log grows
# and segments go: every row is in the log once, what was shown before is the
# beginning of what is shown after.

use strict;
use warnings;

use MIME::Base64;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

plan skip_all => 'there is no Go with golang.org/x/mod'
  if !log_judge_built();

my $node = bus_node('log_kill',
	conf => "fsync = on\n"
	  . "message_bus.log = on\nmessage_bus.log_interval = 50ms\n"
	  . "message_bus.log_keep = 1d\n"
	  . "message_bus.segment_max_rows = 2000\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.worker_interval = 50ms\n");
my $round = 0;
my %shown;

# show keeps a checkpoint, as a client would.
sub show
{
	my ($status, $out) = $node->psql('postgres',
		'SELECT ' . of_base64('message_bus.audit_checkpoint()::bytea'));

	$shown{$out} = 1 if $status == 0 && $out ne '';
	return;
}

# some publishes, claims, acks and gives back; some of it is rolled back.
sub some
{
	return $node->psql(
		'postgres', q{
		SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 20) AS i;
		BEGIN;
		SELECT message_bus.publish('short', '"not"');
		SELECT message_bus.ack(lease) FROM message_bus.claim('short', 's', batch => 5) GROUP BY lease;
		ROLLBACK;
		SELECT message_bus.ack(lease) FROM message_bus.claim('short', 's', batch => 10) GROUP BY lease;
		SELECT message_bus.nack(lease) FROM message_bus.claim('short', 's', batch => 3) GROUP BY lease;
		SELECT pid FROM pg_stat_activity
		WHERE datname = 'postgres' AND backend_type LIKE 'message_bus%worker%'});
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('load');
	SELECT message_bus.create_channel('short', ttl => '1 second', backoff => '0', backoff_max => '0');
	SELECT message_bus.create_subscription('short', 's')});
kill_rounds(
	node => $node,
	channel => 'load',
	kill => sub {
		my ($status, $out) = some();
		my ($pid) = ($out // '') =~ /(\d+)\s*\z/;

		show();
		return 0 if $status != 0 || !$pid;
		sleep rand 0.3;
		show();
		return kill 9, $pid if ++$round % 2;
		my @others = node_processes($node);
		$node->kill9;
		kill 9, @others;
		return 1;
	},
	recover => sub { restart_killed($node) if $round % 2 == 0 });

wait_for(
	'the expired segments to be dropped',
	sub {
		my ($status, $out) = $node->psql(
			'postgres', q{
			SELECT message_bus.expire();
			SELECT count(*) FROM message_bus.messages WHERE channel = 'short'});

		return $status == 0 && $out =~ /\b0$/;
	});
log_has_all($node, 'each row is in the log once');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.log_run AS r
		WHERE kind < 4 AND NOT EXISTS (SELECT FROM message_bus.segment AS s WHERE s.segment_no = r.segment_no)
			AND NOT EXISTS (SELECT FROM message_bus.log_action AS a WHERE a.segment_no = r.segment_no)}),
	'0',
	'of each segment that went the log says so');

# what was shown, and the end
my $key = $node->safe_psql('postgres', 'SELECT message_bus.audit_key()');
my $end = $node->safe_psql('postgres', 'SELECT max(size) FROM message_bus.log_checkpoint');
show();
my %size = map { (split /\n/, decode_base64($_))[1] => $_ } keys %shown;
my @cases = map { "checkpoint $key $size{$_}" } keys %size;
push @cases, map {
	"consistency $_ $end "
	  . $node->safe_psql('postgres', 'SELECT string_agg(' . of_base64('h') . ", ' ') FROM message_bus.audit_consistency($_, $end) AS h")
} sort { $a <=> $b } keys %size;
cmp_ok(scalar keys %size, '>', 10, 'checkpoints were shown');
is_deeply([ grep { $_ ne 'ok' } log_judged(@cases) ], [], 'each is the beginning of the last');
$node->stop;
done_testing();
