# tests/t/045_disk_full.t
#
# On a full disk what has expired goes by itself, with the reserve that is kept
# for it, and then the bus takes messages again.
#
# The disk is a tmpfs in a mount namespace of this process.

use strict;
use warnings;

use MessageBus::Alone;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $reserve_mb = 16;
my $node = PostgreSQL::Test::Cluster->new('full');
my $filler = $node->data_dir . '/filler';

mkdir $node->data_dir;
system('mount', '-t', 'tmpfs', '-o', 'size=240m,mode=700', 'none',
	$node->data_dir) == 0 || die "could not mount\n";
$node->init(extra => [
	'--encoding=UTF8', '--no-locale', '--wal-segsize=1', '--data-checksums' ]);
# WAL has its files before the disk is full: without, no server works
$node->append_conf('postgresql.conf', bus_conf('postgres')
	  . "log_statement = none\n"
	  . "shared_buffers = 16MB\n"
	  . "max_connections = 20\n"
	  . "autovacuum = off\n"
	  . "message_bus.log = off\n"
	  . "min_wal_size = 32MB\n"
	  . "max_wal_size = 48MB\n"
	  . "message_bus.disk_reserve = '${reserve_mb}MB'\n"
	  . "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.segment_max_size = 8MB\n");
$node->start;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# try_sql runs a statement and returns its SQLSTATE, or ''.
sub try_sql
{
	my ($status, $out, $err) = eval {
		$node->psql('postgres', $_[0],
			on_error_stop => 1,
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	};

	# a session that the full disk has ended before psql could write to it
	return $@ if !defined $status;
	return '' if $status == 0;
	return $err =~ /ERROR:  (\w{5}): / ? $1 : $err;
}

# reserve returns how large the reserve is, in MB.
sub reserve
{
	my $file = $node->data_dir . '/base/' . sql(
		'SELECT oid FROM pg_database WHERE datname = current_database()')
	  . '/message_bus_reserve';

	return (-s $file // -1) / 1024 / 1024;
}

# fill_disk writes to a file until nothing is left.
sub fill_disk
{
	my $size = 1024 * 1024;

	open(my $fh, '>>', $filler) || die "could not open $filler: $!\n";
	while ($size >= 4096)
	{
		my $written = syswrite($fh, "\1" x $size);

		$size /= 2 if !defined $written || $written < $size;
	}
	close $fh;
}

# full tells whether the bus says that the disk is full.
sub full
{
	return sql(q{SELECT count(disk_full_since) FROM message_bus.worker_status});
}

# publish_large publishes random megabytes.
sub publish_large
{
	my ($channel, $count) = @_;

	sql(qq{SELECT count(message_bus.publish_bytes('$channel',
			(SELECT string_agg(sha256((i || ':' || j || random())::bytea), '')
			 FROM generate_series(1, 32768) j), 'application/octet-stream'))
		FROM generate_series(1, $count) i});
}

create_bus($node);
wait_for('the reserve', sub { reserve() == $reserve_mb });
is(full(), 0, 'a disk with room for the reserve is not full');
sql(q{
	CREATE TABLE public.plain (a int);
	-- dead letters that would need a segment keep none from going
	SELECT message_bus.create_channel('letters', ttl => '60 days');
	SELECT message_bus.create_channel('moved', ttl => '25 seconds',
		dead_letter => 'letters', dead_letter_expired => true);
	SELECT message_bus.create_subscription('moved', 's');
	SELECT message_bus.create_channel('short', ttl => '25 seconds',
		compression => 'none');
	SELECT message_bus.create_channel('long', compression => 'none');
	SELECT message_bus.create_subscription('long', 's');
	SELECT message_bus.publish('long', to_json(i)) FROM generate_series(1, 10) i});
sql(q{SELECT message_bus.publish('moved', '1')});
publish_large('short', 8) for 1 .. 6;
sql('CHECKPOINT') for 1 .. 2;

# ----------
# Full
# ----------

# a table of the catalogs that a drop updates has no space in it: rows stay
# because somebody has a snapshot
my $holder = $node->background_psql('postgres');

$holder->query_safe(
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()');
# when the disk is full what is to go is not logged yet
$node->append_conf('postgresql.conf', "message_bus.log = on\n");
fill_disk();
is( try_sql(q{
		SET synchronous_commit = off;
		DO $$
		BEGIN
			FOR i IN 1 .. 100000 LOOP
				UPDATE pg_attribute SET attstattarget = attstattarget
					WHERE attrelid = 'public.plain'::regclass AND attnum = 1;
				COMMIT;
			END LOOP;
		END
		$$}),
	'53100', 'no space for a row of pg_attribute');
wait_for('a publish that finds no space',
	sub { fill_disk(); try_sql(q{SELECT count(message_bus.publish('long', to_json(i)))
		FROM generate_series(1, 1000) i}) eq '53100' });
wait_for('the bus to say so', sub { full() == 1 });
sql_fails($node, 'postgres', q{SELECT message_bus.publish('long', '1')}, '53100',
	qr/takes no messages.*disk.*full.*HINT:.*disk_reserve/s,
	'a publish on a full disk is refused');
is( sql(q{SELECT count(*) FROM message_bus.claim('long', 's', 5)}),
	5, 'claims go on');
is( sql(q{SELECT count(*) FROM message_bus.segment WHERE expires_at < now()}),
	0, 'nothing has expired yet');
is(reserve(), $reserve_mb, 'the reserve is kept until it is needed');
is(sql('SELECT count(*) FROM message_bus.log_state'), 0, 'nothing is logged');
$node->reload;
wait_for(
	'what has expired to be dropped',
	sub {
		sql(q{SELECT count(*) FROM message_bus.segment s, message_bus.channel c
			WHERE c.name = 'short' AND c.series = s.series
				AND s.closed_at IS NOT NULL}) == 0;
	});
ok(1, 'what has expired is dropped on a full disk');
like(slurp_file($node->logfile), qr/gives up its reserve/,
	'with the reserve');
is( sql(q{SELECT bool_and(kind = 'drop-segment') AND sum(entries) > 40
		FROM message_bus.log_action WHERE segment_no IS NOT NULL}),
	't', 'and all of it was logged before');
wait_for('the reserve', sub { reserve() == $reserve_mb });
wait_for('the bus to go on', sub { full() == 0 });
is(try_sql(q{SELECT message_bus.publish('long', '1')}),
	'', 'then messages are taken again');
$holder->quit;

# ----------
# Full, and nothing that could go
# ----------

fill_disk();
wait_for('a publish that finds no space',
	sub { fill_disk(); try_sql(q{SELECT count(message_bus.publish('long', to_json(i)))
		FROM generate_series(1, 1000) i}) eq '53100' });
wait_for('the bus to say so', sub { full() == 1 });
# a shutdown writes a few files of its own, or the server panics
truncate($filler, (-s $filler) - 4 * 1024 * 1024);
$node->restart;
# which removes WAL; the first session writes files that none can do without
sql('SELECT 1');
wait_for('the disk to be full again', sub {
		fill_disk();
		try_sql(q{SELECT count(message_bus.publish('long', to_json(i)))
			FROM generate_series(1, 1000) i}) eq '53100' && full() == 1 });
is(try_sql(q{SELECT message_bus.publish('long', '1')}),
	'53100', 'after a restart on a full disk nothing is taken');
is(reserve(), $reserve_mb, 'the reserve is kept');
unlink $filler;
wait_for('the bus to go on', sub { full() == 0 });
is(try_sql(q{SELECT message_bus.publish('long', '1')}),
	'', 'when there is room messages are taken');

# no room for the reserve at the start
$node->append_conf('postgresql.conf', "message_bus.disk_reserve = '1GB'\n");
$node->restart;
wait_for('the worker', sub { full() == 1 });
is(try_sql(q{SELECT message_bus.publish('long', '1')}),
	'53100', 'without room for the reserve nothing is taken');

# another size, and none
foreach my $mb (4, 24)
{
	$node->append_conf('postgresql.conf', "message_bus.disk_reserve = '${mb}MB'\n");
	$node->reload;
	wait_for("a reserve of $mb MB", sub { reserve() == $mb });
	wait_for('the bus to go on', sub { full() == 0 });
	is(try_sql(q{SELECT message_bus.publish('long', '1')}), '', "$mb MB");
}
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ],
	'the reserve is nothing to pg_checksums');
$node->append_conf('postgresql.conf', "message_bus.disk_reserve = 0\n");
$node->start;
bus_ready($node);
wait_for('no reserve', sub { reserve() < 0 });
is(try_sql(q{SELECT message_bus.publish('long', '1')}), '', 'without a reserve');
$node->append_conf('postgresql.conf', "message_bus.disk_reserve = '4MB'\n");
$node->reload;
wait_for('a reserve', sub { reserve() == 4 });
sql('DROP EXTENSION message_bus');
wait_for('the reserve to go', sub { reserve() < 0 });
ok(1, 'it goes with the extension');

$node->stop;
done_testing();
