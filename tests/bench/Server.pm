# tests/bench/Server.pm
#
# The server that is measured: a private cluster on a Unix socket, with fsync
# on, made once and removed at the end.  Called by root, it runs as user
# postgres.

package Server;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use List::Util qw(min);
use Time::HiRes qw(sleep time);

our @EXPORT = qw(as_user build bus_reset cluster_cpu cluster_end cluster_start
  gateway_program memory_ready pg_config program restart say_line server_cpu settings sql
  sql_file table_reset
  tell_machine wait_until wal_ready work_directory write_file);

my $root = abs_path(dirname(abs_path(__FILE__)) . '/../..');
my $pg_config = $ENV{PG_CONFIG} || '/usr/lib/postgresql/15/bin/pg_config';
my $is_root = ($> == 0);
my ($work, $bindir, $running);

# the clients, and the files that each needs beside its own
my %programs = (
	load => ['calls'],
	consume => [qw(calls take)],
	latency => [qw(calls take)],
	socket => ['websocket'],
	storm => ['websocket'],
	carry => ['websocket'],
	victim => ['websocket'],
	pipeline => [],
	echo => []);

# the libraries that a client needs beside libpq's
my %libraries = (echo => [qw(-lwebsockets -lcap)]);

# program returns the path of a client.
sub program
{
	my ($name) = @_;

	return "$root/tests/bin/bench_$name";
}

# gateway_program returns the path of the gateway.
sub gateway_program
{
	return "$root/gateway/message-bus-gateway";
}

# work_directory returns where the cluster is, on the disk that is meant.
sub work_directory
{
	return $work;
}

# build makes the directory of the cluster, a private PostgreSQL with the
# extension in it, the gateway and the clients.
sub build
{
	my ($include, $libdir) =
	  map { pg_config("--$_") } qw(includedir libdir);

	make_path("$root/tests/bin");
	foreach my $program (sort keys %programs)
	{
		my @files = map { "$root/tests/bench/$_.c" }
		  ($program, @{ $programs{$program} }, 'client');

		must('cc', '-std=gnu99', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra',
			"-I$include", '-o', "$root/tests/bin/bench_$program", @files,
			"-L$libdir", '-lpq', '-lcrypto', '-lpthread',
			@{ $libraries{$program} // [] });
	}
	must('sh', '-c', '"$@" >&2', 'sh', 'make', '-s', '-C', "$root/gateway");
	$work = tempdir('mbus-bench-XXXXXX', DIR => $ENV{BENCH_DIR} || '/tmp');
	local $ENV{PG_CONFIG} = $pg_config;
	chomp($pg_config = qx("$root/tools/private" "$work/postgresql"));
	die "tests/bench/run: failed: tools/private\n" if $? != 0;
	$bindir = pg_config('--bindir');
}

sub pg_config
{
	my ($option) = @_;
	my $value = qx("$pg_config" $option);

	die "tests/bench/run: could not run $pg_config\n" if $? != 0;
	chomp $value;
	return $value;
}

# must runs a command and dies if it fails.
sub must
{
	my (@command) = @_;

	return if system(@command) == 0;
	die "tests/bench/run: failed: @command\n";
}

# as_user returns the command line that runs a command as the server's user.
sub as_user
{
	return @_ if !$is_root;
	return ('setpriv', '--reuid=postgres', '--regid=postgres',
		'--init-groups', '--', @_);
}

# memory_mb returns how much memory the machine has.
sub memory_mb
{
	my ($kb) = map { /^MemTotal:\s+(\d+)/ } lines_of('/proc/meminfo');

	return int(($kb // 2 * 1024 * 1024) / 1024);
}

# buffers_mb returns a quarter of the machine's memory, which PostgreSQL's
# manual recommends, at most 8 GB.
sub buffers_mb
{
	return min(8192, int(memory_mb() / 4));
}

# cluster_start makes and starts the cluster.  No checkpoint comes by itself,
# since each measurement begins with one, and autovacuum, which would help
# one measurement and not the next, is off.
sub cluster_start
{
	write_file("$work/server.conf", <<"CONF");
listen_addresses = ''
unix_socket_directories = '$work'
port = 54321
fsync = on
synchronous_commit = on
shared_buffers = ${\ buffers_mb()}MB
max_wal_size = 16GB
min_wal_size = 2GB
checkpoint_timeout = 1h
autovacuum = off
max_connections = 250
message_bus.max_subscriptions = 16384
shared_preload_libraries = 'message_bus'
message_bus.databases = 'postgres'
CONF
	if ($is_root)
	{
		must('chown', '-R', 'postgres:', $work);
		chmod 0755, $work;
	}
	delete @ENV{ grep { /^PG(?!_CONFIG)/ } keys %ENV };
	@ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} =
	  ($work, 54321, 'postgres', 'postgres');
	chdir $work;
	must(as_user('sh', '-c',
			'"$1/initdb" -D data -A trust -N -E UTF8 --no-locale -U postgres '
			  . '>log 2>&1 && cat server.conf >>data/postgresql.conf',
			'sh', $bindir));
	$running = 1;
	must(as_user("$bindir/pg_ctl", '-D', 'data', '-l', 'log', '-w', '-s',
			'start'));
	memory_ready();
}

sub cluster_stop
{
	system(as_user("$bindir/pg_ctl", '-D', "$work/data", '-m', 'immediate',
			'-w', '-s', 'stop'));
	chdir '/';
}

# settings sets settings of the server, and takes back all that were set
# before.
sub settings
{
	my (%value) = @_;

	sql('ALTER SYSTEM RESET ALL',
		(map { "ALTER SYSTEM SET $_ = '$value{$_}'" } sort keys %value),
		'SELECT pg_reload_conf()');
}

# restart lets settings of shared memory count.
sub restart
{
	must(as_user("$bindir/pg_ctl", '-D', "$work/data", '-l', "$work/log", '-w',
			'-s', '-m', 'fast', 'restart'));
}

# wal_ready makes files of WAL to be used again, as a server has them that has
# run for a while: one that must make new ones writes all twice.
sub wal_ready
{
	my ($megabytes) = @_;
	my $ready = sql('SELECT count(*) FROM pg_ls_waldir()'
		  . ' WHERE name > pg_walfile_name(pg_current_wal_lsn())');
	my $missing = int($megabytes / 16) - $ready;

	sql('CREATE TABLE public.wal_ready ()', 'CHECKPOINT');
	sql((map { ('INSERT INTO public.wal_ready DEFAULT VALUES',
		  'SELECT pg_switch_wal()') } 1 .. 100)) for 1 .. $missing / 100 + 1;
	# the first checkpoint estimates, the second keeps what it may
	sql('DROP TABLE public.wal_ready', 'CHECKPOINT', 'CHECKPOINT');
}

# memory_ready fills the kernel's cache, with a file that is one hole, as it
# is on a server that has run for a while.  A virtual machine's host gives
# memory that was never used, or not for some time, page by page when it is
# touched, which is dear.
sub memory_ready
{
	my $name = "$work/hole";
	my $buffer;

	open(my $file, '+>>', $name) || die "could not open $name: $!\n";
	truncate($file, memory_mb() * 1024 * 1024)
	  || die "could not write $name: $!\n";
	seek($file, 0, 0);
	1 while sysread($file, $buffer, 1024 * 1024);
	close($file);
}

# cluster_cpu returns the milliseconds of processor time that the server's
# processes have used so far, those that have ended left out.
sub cluster_cpu
{
	my ($postmaster) = lines_of("$work/data/postmaster.pid");
	my $total = 0;

	chomp $postmaster;
	foreach my $directory (glob '/proc/[0-9]*')
	{
		my ($stat) = lines_of("$directory/stat");
		my ($time) = lines_of("$directory/schedstat");
		my @field;

		next if !defined $stat || !defined $time;
		@field = split ' ', $stat =~ s/^.*\) //sr;
		next if $field[1] != $postmaster && $directory ne "/proc/$postmaster";
		$total += (split ' ', $time)[0] / 1e6;
	}
	return $total;
}

# server_cpu returns the milliseconds of processor time that the server has used
# so far, with that of processes that have ended.
sub server_cpu
{
	my ($postmaster) = lines_of("$work/data/postmaster.pid");
	my $ticks = 0;

	chomp $postmaster;
	foreach my $directory (glob '/proc/[0-9]*')
	{
		my ($stat) = lines_of("$directory/stat");
		my @field;

		next if !defined $stat;
		@field = split ' ', $stat =~ s/^.*\) //sr;
		if ($directory eq "/proc/$postmaster")
		{
			$ticks += $_ foreach @field[ 11 .. 14 ];
		}
		elsif ($field[1] == $postmaster)
		{
			$ticks += $field[11] + $field[12];
		}
	}
	return $ticks * 10;    # a tick is 10 ms
}

# sql runs statements, each by itself, and returns the last one's output.
sub sql
{
	my (@statements) = @_;
	my $output;

	open(my $psql, '-|', "$bindir/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1',
		map { ('-c', $_) } @statements) || die "could not run psql: $!\n";
	while (my $line = <$psql>)
	{
		chomp($output = $line);
	}
	close($psql) || die "tests/bench/run: failed: @statements\n";
	return $output // '';
}

# sql_file runs a file of this directory.
sub sql_file
{
	my ($name) = @_;

	must('sh', '-c', '"$@" >&2', 'sh', "$bindir/psql", '-Xq', '-v',
		'ON_ERROR_STOP=1', '-c', 'SET client_min_messages = error', '-f',
		"$root/tests/bench/$name");
}

# wait_until waits for a query to return "t".
sub wait_until
{
	my ($query) = @_;

	foreach (1 .. 1200)
	{
		return if sql($query) eq 't';
		sleep 0.1;
	}
	die "tests/bench/run: waited in vain for $query\n";
}

sub write_file
{
	my ($name, $text) = @_;

	open(my $fh, '>', $name) || die "could not open $name: $!\n";
	print $fh $text;
	close($fh) || die "could not write $name: $!\n";
}

# tell_machine prints what the figures are figures of.
sub tell_machine
{
	my ($pairs, $seconds) = @_;
	my $cores = grep { /^processor/ } lines_of('/proc/cpuinfo');
	my ($model) = map { /^model name\s*:\s*(.*)/ } lines_of('/proc/cpuinfo');
	my ($load_now) = map { (split)[0] } lines_of('/proc/loadavg');
	my $filesystem = (split ' ', (qx(df -T "$work"))[-1])[1];

	say_line(
		'PostgreSQL %s, %d x %s, %s, load %s, %d pairs of %g s',
		sql('SHOW server_version'),
		$cores, $model // '?', $filesystem, $load_now, $pairs, $seconds);
	say_line('warning: %s loses the cost of fsync; set BENCH_DIR', $filesystem)
	  if $filesystem eq 'tmpfs';
}

sub lines_of
{
	my ($name) = @_;

	open(my $fh, '<', $name) || return ();
	return <$fh>;
}

# cluster_end stops and removes the cluster, if there is one.
sub cluster_end
{
	return if !defined $work;
	cluster_stop() if $running;
	remove_tree($work);
}

# bus_reset makes the bus anew, with an empty channel "bench".  The message
# opens the segment that the channel's messages go to.
sub bus_reset
{
	my (@more) = @_;

	sql('SET client_min_messages = error',
		'DROP EXTENSION IF EXISTS message_bus CASCADE',
		'CREATE EXTENSION message_bus',
		"SELECT message_bus.create_channel('bench', ttl => '1 day')",
		"SELECT message_bus.create_channel('first', ttl => '1 day')",
		"SELECT message_bus.publish('first', '1')",
		@more);
}

# table_reset makes the base anew: columns and indexes of a segment, without
# its CHECK constraint.
sub table_reset
{
	my $segment = sql('SELECT max(segment_no) FROM message_bus.segments');

	sql('SET client_min_messages = error',
		'DROP SCHEMA IF EXISTS bench CASCADE',
		'CREATE SCHEMA bench',
		"CREATE TABLE bench.message (LIKE message_bus.message_$segment"
		  . ' INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION)');
}

sub say_line
{
	my ($format, @values) = @_;

	printf STDERR "$format\n", @values;
}

1;
