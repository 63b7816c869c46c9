# tests/t/024_dump_and_publish.t
#
# pg_dump beside segments that expire, and the bus under publications of all
# tables: with a subscriber of the way that the README tells.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $dumps = $ENV{MBUS_DUMPS} || 40;
my $node = bus_node('node',
	streaming => 1,
	conf => "wal_level = logical\n"
	  . "message_bus.worker_interval = 20ms\n"
	  . "message_bus.segment_max_rows = 20\n");
my $reader = PostgreSQL::Test::Cluster->new('reader');
my @families = qw(message event ack failure);

# retired returns how many segments have been dropped.
sub retired
{
	return $node->safe_psql('postgres',
		q{SELECT value FROM message_bus.metrics
		  WHERE metric = 'segments_retired_total'});
}

# left returns how many of the channel "short" are still to be dropped; one
# that is open stays, for the next messages.
sub left
{
	return $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.segments s
		JOIN message_bus.channel c USING (series)
		WHERE c.name = 'short' AND s.state <> 'open'});
}

$reader->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$reader->start;
create_bus($node);

# ----------
# Publications
# ----------

$node->safe_psql('postgres',
	'CREATE PUBLICATION everything FOR ALL TABLES');
$node->safe_psql('postgres',
		'CREATE PUBLICATION bus FOR TABLE '
	  . join(', ', map { "message_bus.$_" } @families)
	  . ' WITH (publish_via_partition_root = true)');
# what reads is a copy of the parents, without partitions and extension
$reader->safe_psql('postgres', 'CREATE SCHEMA message_bus');
foreach my $family (@families)
{
	$reader->safe_psql(
		'postgres',
		"CREATE TABLE message_bus.$family ("
		  . $node->safe_psql(
			'postgres',
			"SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod),
				', ' ORDER BY attnum) FROM pg_attribute
			 WHERE attrelid = 'message_bus.$family'::regclass
				AND attnum > 0 AND NOT attisdropped")
		  . ')');
}
$reader->safe_psql('postgres',
		"CREATE SUBSCRIPTION reads CONNECTION '"
	  . $node->connstr('postgres') =~ s/'//gr
	  . "' PUBLICATION bus");
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('short', ttl => '1 second');
	SELECT message_bus.create_channel('c', max_attempts => 2);
	SELECT message_bus.create_subscription('c', 's')});
$node->safe_psql('postgres',
	"SELECT message_bus.publish('c', to_json($_))") foreach 1 .. 50;
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease, array_agg(id))
	FROM message_bus.claim('c', 's', 10) GROUP BY lease;
	SELECT message_bus.nack(lease, array_agg(id))
	FROM message_bus.claim('c', 's', 10) GROUP BY lease;
	SELECT message_bus.record_event(min(id), 'accessed', now())
	FROM message_bus.peek('c');
	SELECT message_bus.publish('short', to_json(i))
	FROM generate_series(1, 50) i;
	SELECT message_bus.alter_channel('c', ttl => '1 hour');
	SELECT message_bus.pause('c', 's');
	SELECT message_bus.resume('c', 's');
	SELECT message_bus.create_channel('gone');
	SELECT message_bus.drop_channel('gone');
	SELECT message_bus.seek('c', 's', 'latest')});
sql_fails($node, 'postgres', q{SELECT message_bus.publish('none', '1')},
	'42P01', qr/none/, 'a failure');
wait_for('the failure',
	sub { $node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.error') > 0 });
$node->safe_psql('postgres',
	q{DELETE FROM message_bus.error});
wait_for(
	'expired segments to be dropped',
	sub {
		left() == 0 && retired() >= 2;
	});
wait_for(
	'all of it at the subscriber',
	sub {
		$reader->safe_psql('postgres',
			'SELECT count(*) FROM message_bus.message') >= 100;
	});
foreach my $family (qw(ack failure event))
{
	wait_for("$family at the subscriber",
		sub {
			$reader->safe_psql('postgres',
				"SELECT count(*) FROM message_bus.$family") > 0;
		});
}
ok(1, 'a subscriber gets what new segments hold, and keeps it');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(last_error, E'\n') FROM message_bus.worker_status}),
	'',
	'the worker works under a publication of all tables');
$reader->safe_psql('postgres', 'DROP SUBSCRIPTION reads');

# ----------
# Dumps
# ----------

# segments that come and go all the time, but not so many more than go between
# two dumps that the locks of one do not suffice
my $script = $node->basedir . '/load.sql';

append_to_file($script,
	q{SELECT count(message_bus.publish('short', to_json(i),
		ttl => '100 milliseconds')) FROM generate_series(1, 30) i \watch 0.2}
	  . "\n");
my $load = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $script ],
	'>', '/dev/null');

my $retired = retired();
my $failed = 0;

foreach my $i (1 .. $dumps)
{
	my $said;

	IPC::Run::run(
		[
			'pg_dump', ($i % 4 == 0 ? ('--format=directory', '--jobs=2') : ()),
			'--file=' . $node->basedir . "/dump_$i", '--host', $node->host,
			'--port', $node->port, 'postgres'
		],
		'>', '/dev/null', '2>', \$said) or $failed++;
	diag($said) if $said;
	sleep 0.2;
}
is($failed, 0, "none of $dumps dumps failed");
$load->kill_kill;
$retired = retired() - $retired;
cmp_ok($retired, '>', $dumps / 2, 'while segments were retired');
note("retired: $retired");
wait_for(
	'the last ones to be dropped',
	sub {
		left() == 0;
	});
unlike(slurp_file($node->logfile),
	qr/already pending detach/, 'nothing is detached twice');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(last_error, E'\n') FROM message_bus.worker_status}),
	'',
	'the worker had no error');

$node->stop;
$reader->stop;
done_testing();
