# tests/t/086_log_prune.t
#
# The log stays small: what it has of segments that are gone goes, and what is
# there can be proved, also from a checkpoint that somebody has kept.

use strict;
use warnings;

use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no Go with golang.org/x/mod'
  if !log_judge_built();

my $rounds = 5;
my $node = bus_node('log_prune',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 1h\n"
	  . "message_bus.log_action_ttl = 1s\n"
	  . "message_bus.segment_max_rows = 2000\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.worker_interval = 50ms\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

# set changes a setting of the server.
sub set
{
	my ($name, $value) = @_;

	query("ALTER SYSTEM SET message_bus.$name = '$value'");
	query('SELECT pg_reload_conf()');
	return;
}

# checkpoint makes one of all there is, and returns its size.
sub checkpoint
{
	set(log_interval => '10ms');
	log_covered($node);
	set(log_interval => '1h');
	return query('SELECT max(size) FROM message_bus.log_checkpoint');
}

# some publishes what lives long, and more that does not.
sub some
{
	query( q{SELECT count(message_bus.publish('long', to_json(i))) FROM generate_series(1, 2) AS i;
		SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 3000) AS i;
		SELECT message_bus.ack(lease) FROM message_bus.claim('short', batch => 500) GROUP BY lease;});
	return;
}

# pruned waits until nothing of the short ones is there, nor to be pruned.
sub pruned
{
	my $what = shift // 'none';

	wait_for(
		'the segments to go',
		sub {
			query('SELECT message_bus.expire()');
			return query( q{
				SELECT (SELECT count(*) FROM message_bus.segment s WHERE EXISTS
						(SELECT FROM message_bus.message m WHERE m.id >> 29 = s.segment_no >> 5
							AND m.channel_id = (SELECT channel_id FROM message_bus.channel WHERE name = 'short')))
					+ (SELECT count(*) FROM message_bus.message
						WHERE channel_id = (SELECT channel_id FROM message_bus.channel WHERE name = 'short'))
					+ (SELECT count(*) FROM message_bus.log_action WHERE kind <> 'log')}
				  . ($what eq 'kept' ? '' : ' + (SELECT count(*) FROM message_bus.log_gone)')) eq '0';
		});
	return;
}

sub tiles { return query('SELECT count(DISTINCT n) FROM message_bus.log_tile WHERE level = 0') }

create_bus($node);
query(q{SELECT message_bus.create_channel('long', ttl => '1 day');
	SELECT message_bus.create_channel('short', ttl => '1 second')});

some();
my $first = checkpoint();
my $note = query('SELECT ' . of_base64('message_bus.audit_checkpoint()::bytea'));
my $most = 0;
foreach my $round (2 .. $rounds)
{
	some();
	log_covered_rows($node);
	pruned();
	my $tiles = tiles();
	$most = $tiles if $tiles > $most;
}

# two tiles for what lives long in each round, in case it lies on an edge, that
# of the first checkpoint, and the last one; with all there are 12 in a round
my $size = query('SELECT size FROM message_bus.log_state');
cmp_ok($size, '>', $rounds * 3000, 'all was logged');
cmp_ok($most, '<=', 2 * $rounds + 2, "of $size entries few tiles are there");
is( query(q{SELECT count(*) FROM message_bus.log_run r WHERE NOT EXISTS (SELECT FROM message_bus.log_tile t
		WHERE t.level = 0 AND t.n >= r.first_index >> 8 AND t.n <= (r.first_index + r.n - 1) >> 8)}),
	0,
	'and only their runs');
is( query(q{SELECT count(*) FROM generate_series(0, (SELECT (size >> 16) - 1 FROM message_bus.log_state)) AS n
		WHERE NOT EXISTS (SELECT FROM message_bus.log_tile t WHERE t.level = 1 AND t.n = n)}),
	0,
	'the level above is whole');

my $last = checkpoint();
my $key = query('SELECT message_bus.audit_key()');
my @proofs = map { "proof $key $_" } split /\n/,
  query(q{SELECT } . of_base64('message_bus.audit_proof(id)::bytea')
	  . q{ FROM message_bus.messages WHERE channel = 'long'});
is(scalar @proofs, 2 * $rounds, 'what is there has proofs');
is_deeply([ grep { $_ ne 'ok' } log_judged(@proofs) ], [], 'that hold');
my $new_note = query('SELECT ' . of_base64('message_bus.audit_checkpoint()::bytea'));
is_deeply(
	[
		log_judged(
			"checkpoint $key $note", "checkpoint $key $new_note",
			"consistency $first $last "
			  . query("SELECT string_agg(" . of_base64('h') . ", ' ') FROM message_bus.audit_consistency($first, $last) AS h"))
	],
	[ 'ok', 'ok', 'ok' ],
	'the log is shown to go on from the checkpoint that was kept');
is(log_faults($node), '', 'and what was pruned is no fault');

# a size that no checkpoint was of, in a tile that has gone
my ($hole) = split /\n/,
  query( qq{SELECT 256 * n + 100 FROM generate_series(1, $size / 256 - 1) AS n
	WHERE NOT EXISTS (SELECT FROM message_bus.log_tile t WHERE t.level = 0 AND t.n = n.n)});
like(
	sql_error("SELECT message_bus.audit_consistency($hole, $last)"),
	qr/ERROR:  55000: the log lacks hash \d+ of level 0/,
	'from another size it cannot be shown');

# log_keep
set(log_keep => '1h');
my $before = tiles();
some();
pruned('kept');
cmp_ok(tiles(), '>=', $before + 10, 'with log_keep it stays for a while');
is(log_faults($node), '', 'nor is what is to be');
set(log_keep => 0);
pruned();
cmp_ok(tiles(), '<=', $before + 3, 'and then goes');

# a day and two hours of checkpoints, as if one were made every minute
query( q{ALTER TABLE message_bus.log_checkpoint DISABLE TRIGGER log_restored;
	INSERT INTO message_bus.log_checkpoint (size, at, origin, root, signature)
	SELECT i - 2000, now() - make_interval(mins => 1560 - i), 'x', '', '' FROM generate_series(1, 1499) AS i;
	INSERT INTO message_bus.log_cosignature VALUES (-1990, 'w', '', now()), (-1991, 'w', '', now());
	ALTER TABLE message_bus.log_checkpoint ENABLE ALWAYS TRIGGER log_restored});
pruned();
my ($hour, $day, $older) = split /\|/, query(q{
	SELECT count(*) FILTER (WHERE at >= now() - interval '1 hour'),
		count(*) FILTER (WHERE at < now() - interval '1 hour' AND at >= now() - interval '1 day'),
		count(*) FILTER (WHERE at < now() - interval '1 day')
	FROM message_bus.log_checkpoint WHERE origin = 'x'});
cmp_ok($day, '>=', 22, 'checkpoints of a day are kept by the hour');
cmp_ok($day, '<=', 25, 'no more of them');
cmp_ok($older, '<=', 3, 'older ones by the day');
is(query('SELECT string_agg(size::text, NULL) FROM message_bus.log_checkpoint JOIN message_bus.log_cosignature USING (size)'), -1990,
	'and that which a witness has signed last');
is(query('SELECT count(*) FROM message_bus.log_cosignature'), 1, 'whose other lines go');

$node->restart;
some();
log_covered_rows($node);
pruned();
cmp_ok(tiles(), '<=', $before + 6, 'after a restart it goes on');
$node->stop;
done_testing();

# sql_error returns what a statement fails with.
sub sql_error
{
	my ($sql) = @_;
	my (undef, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return $err;
}

# log_covered_rows waits until all is logged, without a checkpoint.
sub log_covered_rows
{
	wait_for(
		'all to be logged',
		sub {
			return query( q{SELECT facts_to = (SELECT next FROM message_bus.fact_numbers())
				AND facts_pending = '{}'
				AND NOT EXISTS (SELECT FROM message_bus.segment
					WHERE log_to IS NULL OR log_pending <> '{}' OR log_facts <> '{}')
				FROM message_bus.log_state}) eq 't';
		});
	return;
}
