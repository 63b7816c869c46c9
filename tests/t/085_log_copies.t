# tests/t/085_log_copies.t
#
# Copies of the log: a dump that is restored, into a new database, into one that
# has a log, and in part; a standby that is promoted; a restart by hand.  Each
# goes on under a name of its own, from where it was, with each row once.  And
# what holds the log up: nobody's old snapshot, and an open transaction its own
# rows only.

use strict;
use warnings;

use MIME::Base64;
use MessageBus::Log;
use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no Go with golang.org/x/mod'
  if !log_judge_built();

my $node = bus_node('log_copies',
	streaming => 1,
	databases => [qw(postgres copy own part alien)],
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.segment_interval = 0\nmessage_bus.worker_interval = 200ms\n");
my $dump = $node->basedir . '/dump';

sub query { return $_[0]->safe_psql($_[1], $_[2]) }

# note_of returns the newest checkpoint, as the judge takes it.
sub note_of
{
	my ($on, $database) = @_;

	return query($on, $database, 'SELECT ' . of_base64('message_bus.audit_checkpoint()::bytea'));
}

# some publishes, acknowledges, gives back and records.
sub some
{
	my ($on, $database) = @_;

	return query($on, $database, q{
		SELECT count(message_bus.publish('load', to_json(i))) FROM generate_series(1, 40) AS i;
		SELECT message_bus.ack(lease, array_agg(id) FILTER (WHERE id % 3 > 0)) FROM message_bus.claim('load', 's', batch => 20) GROUP BY lease;
		SELECT message_bus.nack(lease) FROM message_bus.claim('load', 's', batch => 3) GROUP BY lease;
		SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages LIMIT 5});
}

# continues checks that the newest log goes on from another, for others' code.
sub continues
{
	my ($on, $database, $from, $what) = @_;
	my ($key, $note) = @$from;
	my ($origin, $size, $root) = split /\n/, decode_base64($note);

	log_has_all($on, "$what: each row is in the log once", $database);
	my ($entry) = query($on, $database, q{SELECT convert_from(message_bus.audit_entry(NULL, 'log'), 'UTF8')}) =~ /^continues (.*)$/m;
	my ($continued, $until) = split / /, $entry;
	my $new = query($on, $database, 'SELECT max(size) FROM message_bus.log_checkpoint');

	is($continued, $origin, "$what: it says what it continues");
	cmp_ok($until, '>=', $size, "$what: from behind what was shown");
	isnt(query($on, $database, 'SELECT origin FROM message_bus.log_state'), $origin, "$what: under another name");
	is_deeply(
		[
			log_judged(
				"checkpoint $key $note",
				'checkpoint ' . query($on, $database, 'SELECT message_bus.audit_key()') . ' ' . note_of($on, $database),
				"consistency $size $new "
				  . query($on, $database, "SELECT string_agg(" . of_base64('h') . ", ' ') FROM message_bus.audit_consistency($size, $new) AS h"))
		],
		[qw(ok ok ok)],
		"$what: what was shown is its beginning");
	return;
}

create_bus($node);
query($node, 'postgres', q{
	SELECT message_bus.create_channel('load', backoff => '0', backoff_max => '0');
	SELECT message_bus.create_subscription('load', 's')});

# ----------
# An old snapshot, and an open transaction
# ----------

{
	my @open = map { $node->background_psql('postgres', on_error_stop => 1) } 1 .. 2;

	$open[0]->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM message_bus.messages');
	$open[1]->query_safe(q{BEGIN; SELECT message_bus.publish('load', '"open"');
		SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages LIMIT 1});
	some($node, 'postgres');
	wait_for(
		'all others to be logged',
		sub {
			query($node, 'postgres', q{
				SELECT (SELECT sum(n) FROM message_bus.log_run WHERE kind < 4) = (SELECT count(*) FROM message_bus.message)
					+ (SELECT count(*) FROM message_bus.event) + (SELECT count(*) FROM message_bus.ack) + (SELECT count(*) FROM message_bus.failure)
					AND facts_pending <> '{}' FROM message_bus.log_state}) eq 't';
		});
	ok(1, 'an open transaction holds up its own rows only, an old snapshot none');
	$open[1]->query_safe('COMMIT');
	log_has_all($node, 'which are logged when it ends');
	$_->quit foreach @open;
}

# ----------
# A dump, with rows that were not logged yet
# ----------

my $from = [ query($node, 'postgres', 'SELECT message_bus.audit_key()'), note_of($node, 'postgres') ];
{
	my $holder = $node->background_psql('postgres', on_error_stop => 1);

	$holder->query_safe('BEGIN; LOCK message_bus.log_state IN EXCLUSIVE MODE');
	some($node, 'postgres');
	$node->command_ok([ 'pg_dump', '-Fd', '-f', $dump, 'postgres' ], 'the dump');
	$holder->query_safe('COMMIT');
	$holder->quit;
}
query($node, 'postgres', "CREATE DATABASE $_") foreach qw(copy own part alien);
restore_ok($node, 'copy', $dump, 'it is restored', '--jobs=2');
some($node, 'copy');
continues($node, 'copy', $from, 'a restored copy');
log_has_all($node, 'where it comes from the log goes on');

# ----------
# Where there is a log
# ----------

bus_at($node, 'own', 50);
query($node, 'own', q{SELECT message_bus.publish('default', '1')});
log_has_all($node, 'another log', 'own');
my $own = query($node, 'own', 'SELECT origin FROM message_bus.log_state');
restore_ok($node, 'own', $dump, 'a dump is restored into a bus with a log');
query($node, 'own', q{SELECT message_bus.publish('default', '2')});
wait_for('what it brings to be logged', sub { query($node, 'own', "SELECT count(DISTINCT segment_no) > 1 FROM message_bus.log_run") eq 't' });
log_has_all($node, 'what it brings is logged once', 'own');
is(query($node, 'own', 'SELECT origin FROM message_bus.log_state'), $own, 'in the log that was there');

# ----------
# A part
# ----------

{
	my $list = $node->basedir . '/list';

	run_log([ 'pg_restore', '--list', '--file', "$list.all", $dump ]);
	append_to_file($list, join "\n", grep { !/TABLE DATA message_bus log_(tile|run)/ } split /\n/, slurp_file("$list.all"));
	restore_ok($node, 'part', $dump, 'a part is restored', '--use-list', $list);
}
query($node, 'part', q{SELECT message_bus.publish('load', '1')});
is(query($node, 'part', q{SELECT message_bus.audit_key() IS NULL}), 't', 'a log that is not whole does not go on');
sql_fails($node, 'part', q{SET ROLE pg_monitor; SELECT message_bus.audit_restart('x')}, '42501', qr/permission denied/, 'not everybody may have another');
sql_fails($node, 'part', q{SELECT message_bus.audit_restart(repeat('x', 1001))}, '22023', qr/reason has 1001 bytes/, 'a reason that is too long');
is(query($node, 'part', q{SELECT message_bus.audit_restart('the rest is lost') IS NULL}), 't', 'another one is begun by hand');
log_has_all($node, 'with all there is', 'part');
is(query($node, 'part', q{SELECT convert_from(message_bus.audit_entry(NULL, 'log'), 'UTF8') !~ 'continues'}), 't', 'which continues none');

# ----------
# Another bus's
# ----------

query($node, 'postgres', q{SELECT message_bus.create_channel('brief', ttl => '5 seconds')});
my $brief = query($node, 'postgres', q{SELECT message_bus.publish('brief', '1') >> 24});
$node->command_ok([ 'pg_dump', '-Fc', '-n', 'message_bus', '-f', "$dump.tables", 'postgres' ], 'a dump of tables alone');
bus_at($node, 'alien', 90);
log_has_all($node, 'another log', 'alien');
restore_ok($node, 'alien', "$dump.tables", 'they are restored where they are foreign');
wait_for(
	'one to come and go',
	sub {
		query($node, 'alien', 'SELECT message_bus.expire()');
		query($node, 'alien', "SELECT to_regclass('message_bus.message_$brief') IS NULL AND (SELECT count(*) > 0 FROM message_bus.segments WHERE state = 'foreign')") eq 't';
	});
query($node, 'alien', q{SELECT message_bus.publish('default', '1')});
wait_for('a pass', sub { query($node, 'alien', q{SELECT sum(n) = (SELECT count(*) FROM message_bus.message) FROM message_bus.log_run WHERE kind = 0}) eq 't' });
is(query($node, 'alien', q{SELECT count(*) FROM message_bus.log_action WHERE segment_no IS NOT NULL}), '0', 'of what was never to be logged nothing is said');

# ----------
# By hand
# ----------

$from = [ query($node, 'copy', 'SELECT message_bus.audit_key()'), note_of($node, 'copy') ];
my $origin = query($node, 'copy', q{SELECT message_bus.audit_restart('a snapshot of the disk')});
is(query($node, 'copy', 'SELECT origin FROM message_bus.log_state'), $origin, 'a restart by hand returns the name');
some($node, 'copy');
continues($node, 'copy', $from, 'a restart by hand');
like(decode_base64(query($node, 'copy', q{SELECT message_bus.audit_proof(NULL, 'log')}) =~ /^extra (.*)$/m ? $1 : ''),
	qr/^reason [0-9a-f]{32} @{[quotemeta encode_base64('a snapshot of the disk', '')]}$/m, 'and commits to the reason');

# ----------
# A standby
# ----------

my $standby = PostgreSQL::Test::Cluster->new('log_standby');

$node->backup('backup');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
some($node, 'postgres');
log_covered($node);
$from = [ query($node, 'postgres', 'SELECT message_bus.audit_key()'), note_of($node, 'postgres') ];
$node->wait_for_catchup($standby);
is(note_of($standby, 'postgres'), $from->[1], 'a standby shows checkpoints');
$standby->promote;
bus_ready($standby);
some($standby, 'postgres');
continues($standby, 'postgres', $from, 'a promoted standby');
$standby->stop;
$node->stop;
done_testing();
