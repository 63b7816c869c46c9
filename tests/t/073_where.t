# tests/t/073_where.t
#
# What is looked at: with many segments, subscriptions that have nothing in
# them are loaded and claimed from without a look into each; and one who waits
# for many channels looks at those that it is woken for.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { SEGMENTS => 24, CHANNELS => 60, PUBLISHES => 15 };

my $node = bus_node('where',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 16\n");

# looks returns how often a statement looks into a segment for what is due by
# its time: scans of indexes of delayed messages, and of failures.
sub looks
{
	my ($sql) = @_;
	my $scans = q{
		SELECT coalesce(sum(pg_stat_get_xact_numscans(indexrelid)), 0)
		FROM pg_index JOIN pg_class c ON c.oid = indrelid
			JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = indkey[1]
		WHERE relnamespace = 'message_bus'::regnamespace
			AND relname ~ '^(message|failure)_[0-9]+$'
			AND attname IN ('available_at', 'retry_at')};
	my @lines = split /\n/,
	  $node->safe_psql(
		'postgres', qq{
		SELECT count(*) FROM message_bus.peek('busy');
		BEGIN;
		$scans;
		$sql;
		$scans;
		COMMIT});

	return $lines[-1] - $lines[1];
}

# scans returns how many there were of messages, in all sessions.
sub scans
{
	return $node->safe_psql(
		'postgres', q{
		SELECT sum(idx_scan) FROM pg_stat_user_tables
		WHERE schemaname = 'message_bus' AND relname ~ '^message_[0-9]+$'});
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel(c) FROM unnest(ARRAY['busy', 'idle']) c;
	SELECT message_bus.create_subscription(c, s, ordered => s = 'ordered')
		FROM unnest(ARRAY['busy', 'idle']) c, unnest(ARRAY['plain', 'ordered']) s;
	SELECT message_bus.publish('idle', to_json(n), key => 'k') FROM generate_series(1, 3) n;
	SELECT message_bus.publish('idle', '"delayed"', delay => '1 hour');
	SELECT message_bus.publish('idle', '"soon"', delay => '3 seconds');
	CREATE PROCEDURE fill(segments int) LANGUAGE plpgsql AS $$
	BEGIN
		-- each with what was delayed, and what fails
		FOR i IN 1 .. segments LOOP
			PERFORM message_bus.publish('busy', '1', key => 'k' || n, delay => '1 millisecond') FROM generate_series(1, 16) n;
			COMMIT;
			PERFORM pg_sleep(0.01);
			PERFORM message_bus.nack(lease, delay => '30 minutes')
				FROM (SELECT DISTINCT lease FROM message_bus.claim('busy', 'plain', 100)) c;
			PERFORM message_bus.nack(lease, delay => '30 minutes')
				FROM (SELECT DISTINCT lease FROM message_bus.claim('busy', 'ordered', 100)) c;
			COMMIT;
		END LOOP;
	END $$;
	CALL fill(} . SEGMENTS . q{)});
cmp_ok(
	$node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.segment'),
	'>=', SEGMENTS, 'there are many segments');
foreach my $subscription ('plain', 'ordered')
{
	wait_for(
		'what is there to be done',
		sub {
			$node->safe_psql(
				'postgres', qq{
				SELECT message_bus.ack(lease) FROM message_bus.claim('idle', '$subscription', 10)});
			return $node->safe_psql(
				'postgres', qq{
				SELECT lag_messages FROM message_bus.subscriptions
				WHERE channel = 'idle' AND subscription = '$subscription'}) == 1;
		});
	# and the key's next is looked for in vain
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*) FROM message_bus.claim('idle', '$subscription')"),
		0, "all is done in $subscription");
}

foreach my $how ('it runs', 'a restart', 'a crash')
{
	$node->restart if $how eq 'a restart';
	if ($how eq 'a crash')
	{
		$node->stop('immediate');
		$node->start;
	}
	bus_ready($node);
	foreach my $subscription ('plain', 'ordered')
	{
		# one that is loaded
		wait_for(
			'the subscription to be loaded',
			sub {
				return $node->safe_psql(
					'postgres', qq{
					SELECT lag_messages IS NOT NULL FROM message_bus.subscriptions
					WHERE channel = 'idle' AND subscription = '$subscription'}) eq 't';
			});
		cmp_ok(
			looks("SELECT count(*) FROM message_bus.claim('idle', '$subscription')"),
			'<', SEGMENTS / 2,
			"after $how the first claim from $subscription");
		cmp_ok(
			looks(
				"SELECT message_bus.subscription_lag('idle', '$subscription')"),
			'<', SEGMENTS / 2, 'and its lag');
		$node->safe_psql('postgres',
			"SELECT message_bus.publish('idle', '1', delay => '1 hour')");
		cmp_ok(
			looks("SELECT count(*) FROM message_bus.claim('idle', '$subscription')"),
			'<', SEGMENTS / 2,
			"and one when something delayed was published");
	}
	is( $node->safe_psql(
			'postgres', q{
			SELECT string_agg((message_bus.subscription_lag('busy', s)).lag_messages::text, ' ')
			FROM unnest(ARRAY['plain', 'ordered']) s}),
		join(' ', (16 * SEGMENTS) x 2),
		'what has failed is counted');
}

# one who waits for many channels
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('w' || n), message_bus.create_subscription('w' || n, 'default')
	FROM generate_series(1, } . CHANNELS . q{) n});
# each has come to the end
$node->safe_psql('postgres',
	q{SELECT message_bus.claim('w' || n, 'default') FROM generate_series(1, } . CHANNELS . q{) n});
my $session = $node->background_psql('postgres', on_error_stop => 1);
my $wait = q{SELECT format('CALL message_bus.wait(%L, timeout => ''20 seconds'')',
	array_agg('w' || n)) FROM generate_series(1, } . CHANNELS . q{) n};
$wait = $node->safe_psql('postgres', $wait);
$session->query_safe('CALL message_bus.wait(ARRAY[\'w1\'], timeout => \'0\')');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $before = scans();
$session->query_until(qr/waits/, "\\echo waits\n$wait;\nSELECT pg_stat_force_next_flush();\n\\echo done\n");
wait_for(
	'the session to sleep',
	sub {
		return $node->safe_psql('postgres',
			"SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid") eq 'Extension';
	});
foreach (1 .. PUBLISHES)
{
	$node->safe_psql('postgres',
		"SELECT message_bus.publish('w7', '1', delay => '1 hour')");
	select(undef, undef, undef, 0.05);
}
$node->safe_psql('postgres', "SELECT message_bus.publish('w9', '1')");
like($session->query(''), qr/\{w9\}/, 'the wait ends with the channel that has something');
$session->quit;
cmp_ok(scans() - $before, '<', PUBLISHES * CHANNELS / 2,
	'it has looked at those that it was woken for');

$node->stop;
done_testing();
