# tests/bench/Bulk.pm
#
# The benches of large bodies over the WebSocket, and by HTTP; README.md says what each
# measures.

package Bulk;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::INET;
use IPC::Open2;
use JSON::PP;
use Time::HiRes qw(sleep);

use lib dirname(abs_path(__FILE__));
use Gateway;
use Measure;
use Server;

our @EXPORT = qw(bench_upload bench_download bench_body_range
  bench_body_compression bench_upload_commit bench_bulk_memory);

use constant MIB => 1024 * 1024;

my $body_mb = $ENV{BENCH_BODY_MB} || 1024;
my $commit_mb = $ENV{BENCH_COMMIT_MB} || 20 * 1024;
my $clients = 32;

# door_start makes the bus anew with a channel for bodies, and starts a gateway;
# it returns process id and port.
sub door_start
{
	my ($pid, $port) = Gateway::gateway_start(
		MESSAGE_BUS_CLIENT_MAX_BYTES => 33554432, @_);

	sql("SELECT message_bus.create_channel('bodies', ttl => '1 day',"
		  . " compression => 'none')",
		"SELECT message_bus.grant_channel('bodies', 'bench_app', 'all')");
	return ($pid, $port);
}

# as_app runs a statement as the gateway's clients do.
sub as_app
{
	my ($statement) = @_;

	return sql('SET ROLE bench_app', $statement);
}

# upload_begin begins one of so many bytes, and returns its number.
sub upload_begin
{
	my ($bytes) = @_;

	return as_app("SELECT message_bus.upload_begin('bodies', size => $bytes)");
}

# upload_commit commits, in as many calls as that takes; it returns the
# message's id and how many milliseconds the server needed.
sub upload_commit
{
	my ($upload) = @_;
	my $ms = 0;

	while (1)
	{
		my ($id, $took) = split /\|/,
		  as_app('SELECT id, extract(epoch FROM clock_timestamp() -'
			  . " statement_timestamp()) * 1000"
			  . " FROM message_bus.upload_commit($upload)");

		$ms += $took;
		return ($id, $ms) if $id ne '';
	}
}

# store stores a body through the gateway, and returns its message's id and how
# long the commit took.
sub store
{
	my ($port, $bytes, @options) = @_;
	my $upload = upload_begin($bytes);

	measure('carry', '-p', $port, @options, "up:$upload:$bytes");
	return upload_commit($upload);
}

# rate returns what a client has moved in a second.
sub rate
{
	my ($result) = @_;

	$result->{rate} = $result->{bytes} / $result->{seconds} / MIB;
	$result->{text} = sprintf '%.0f MiB/s', $result->{rate};
	return $result;
}

# bench_upload compares a body that goes up with the same bytes in a table.
sub bench_upload
{
	my ($results, $pid, $port);
	# the round that does not count is a short one
	my $bytes = sub { MIB * ($_[0] == $seconds ? $body_mb : $body_mb / 16) };

	settings();
	Gateway::roles_make();
	$results = alternate(
		sub {
			sql('SET client_min_messages = error',
				'DROP TABLE IF EXISTS bench_bare',
				'CREATE TABLE bench_bare (bytes bytea)',
				'ALTER TABLE bench_bare ALTER bytes SET STORAGE EXTERNAL');
		},
		[ base => sub { rate(measure('carry', 'base:0:' . $bytes->($_[0]))) } ],
		[
			ours => sub {
				my $size = $bytes->($_[0]);
				my $result;

				($pid, $port) = door_start();
				my $upload = upload_begin($size);
				$result = rate(measure('carry', '-p', $port, '-c', 2,
						"up:$upload:$size"));
				upload_commit($upload);
				Gateway::stop($pid);
				return $result;
			}
		]);
	report(
		bench => 'upload',
		unit => 'MiB/s',
		figure => 'rate',
		ours => $results->{ours},
		base => $results->{base},
		target => 0.5,
		better => 'higher',
		more => { body_mb => $body_mb + 0 });
}

# fetch reads a message through the HTTP door with curl.
sub fetch
{
	my ($door, $id) = @_;
	my $url = "http://127.0.0.1:$door/v1/messages/$id";
	my $line = qx(curl -sf -o /dev/null -w '%{time_total} %{size_download}' $url);

	die "tests/bench/run: curl failed\n" if $? != 0;
	my ($seconds, $bytes) = split ' ', $line;
	return rate({ seconds => $seconds, bytes => $bytes });
}

# bench_download compares a body that comes by HTTP with the same by libpq.
sub bench_download
{
	my ($pid, $port, $id, $results);
	my $bytes = $body_mb * MIB;
	my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
	my $door = $socket->sockport;

	close($socket);
	settings();
	Gateway::roles_make();
	($pid, $port) = door_start(MESSAGE_BUS_HTTP_PORT => $door);
	($id) = store($port, $bytes, '-c', 2);
	$results = alternate(
		undef,
		[ base => sub { rate(measure('carry', "read:$id:$bytes")) } ],
		[ ours => sub { fetch($door, $id) } ]);
	Gateway::stop($pid);
	report(
		bench => 'download',
		unit => 'MiB/s',
		figure => 'rate',
		ours => $results->{ours},
		base => $results->{base},
		target => 0.6,
		better => 'higher',
		more => { body_mb => $body_mb + 0 });
}

# bench_body_range compares a small range of a large body with a small message.
sub bench_body_range
{
	my ($pid, $port, $id, $small, $bytes, $results);

	settings();
	Gateway::roles_make();
	($pid, $port) = door_start();
	$bytes = $body_mb * MIB;
	($id) = store($port, $bytes, '-c', 2);
	Gateway::stop($pid);
	$small = sql("SELECT message_bus.publish_bytes('bodies', decode(repeat('5a',"
		  . " 4096), 'hex'))");
	my $per_call = sub {
		my ($name, $text) = @_;
		my $rate = calls_rate("body_$name", $text);

		return { time => 1e6 / $rate,
			text => sprintf('%.0f us', 1e6 / $rate) };
	};
	$results = alternate(
		undef,
		[ base => sub { $per_call->('get',
			"SELECT * FROM message_bus.get($small)") } ],
		[ ours => sub { $per_call->('range',
			'\set at random(0, ' . ($bytes - 4096) . ")\n"
			  . "SELECT message_bus.get_bytes($id, :at, 4096)") } ]);
	report(
		bench => 'body_range',
		unit => 'us',
		figure => 'time',
		ours => $results->{ours},
		base => $results->{base},
		target => 4,
		better => 'lower',
		more => { body_mb => $body_mb + 0 });
}

# packages returns what this machine has installed, as JSON: an array of objects.
sub packages
{
	my @fields = qw(Package Version Architecture Maintainer Section Depends Description);
	my $format = join('\t', map { "\${$_}" } @fields) . '\n';
	my $list = qx(dpkg-query -W -f='$format');
	my @rows = map { my @value = split /\t/; +{ map { ($fields[$_] => $value[$_] // '') }
			0 .. $#fields } } split /\n(?! )/, $list;

	die "tests/bench/run: no packages\n" if !@rows;
	return JSON::PP->new->canonical->encode(\@rows);
}

# bench_body_compression tells what each compression makes of JSON: its size on
# disk, and how fast it goes in and out in one piece.
sub bench_body_compression
{
	my $file = work_directory() . '/packages.json';
	my $text = packages();
	my $copies = int(64 * MIB / length($text)) || 1;
	my $timed = sub {
		my ($statement) = @_;
		my $began = sql('SELECT extract(epoch FROM clock_timestamp())');
		my $value = sql($statement);

		return ($value, sql("SELECT extract(epoch FROM clock_timestamp()) - $began"));
	};

	settings();
	bus_reset();
	write_file($file, '[' . join(",\n", ($text) x $copies) . ']');
	chmod 0644, $file;
	my $bytes = -s $file;

	foreach my $name (qw(none lz4 gzip zstd))
	{
		sql("SELECT message_bus.create_channel('$name', ttl => '1 day',"
			  . " compression => '$name')");
		my ($id, $in) = $timed->("SELECT message_bus.publish_bytes('$name',"
			  . " pg_read_binary_file('$file'), 'application/json')");
		my (undef, $out) = $timed->("SELECT length(message_bus.get_bytes($id))");
		my $store = sql("SELECT body >> 20 FROM message_bus.message WHERE id = $id");
		my $stored = sql("SELECT sum(pg_column_size(bytes)) FROM message_bus.part_$store"
			  . " WHERE body = (SELECT body FROM message_bus.message WHERE id = $id)");
		my %line = (bench => 'body_compression', compression => $name, unit => 'ratio',
			body_mb => short($bytes / MIB), ratio => short($stored / $bytes),
			publish_mib_s => short($bytes / MIB / $in), get_mib_s => short($bytes / MIB / $out));

		print JSON::PP->new->canonical->encode(\%line), "\n";
		say_line('body_compression: %s %s of its size, publish %s MiB/s, get %s MiB/s',
			@line{qw(compression ratio publish_mib_s get_mib_s)});
	}
}

# bench_upload_commit compares the commit of a large body with that of a small
# one, both sent in order over changing connections.
sub bench_upload_commit
{
	my ($pid, $port, $small, $large);
	my @small;

	settings();
	Gateway::roles_make();
	($pid, $port) = door_start();
	foreach (1 .. 5)
	{
		push @small,
		  (store($port, 20 * MIB, '-c', 4, '-o'))[1];
	}
	sql("ALTER SYSTEM SET message_bus.max_body = $commit_mb",
		'ALTER SYSTEM SET message_bus.max_upload_bytes = ' . 2 * $commit_mb,
		'SELECT pg_reload_conf()');
	sleep 1;
	(undef, $large) = store($port, $commit_mb * MIB, '-c', 4, '-o', '-z', 4 * MIB);
	Gateway::stop($pid);
	report_alone(
		bench => 'upload_commit',
		unit => 'ratio',
		name => 'ratio',
		value => $large / median(@small),
		target => 1.5,
		better => 'lower',
		more => { commit_mb => $commit_mb + 0, ours_ms => short($large),
			base_ms => short(median(@small)) });
}

# watched runs what the others do beside a well-behaved client, and returns
# that client's figures and the most that the gateway's memory grew to, in KiB.
sub watched
{
	my ($pid, $port) = @_;
	my $most = 0;
	my $line;

	open(my $victim, '-|', program('victim'), '-p', $port, '-s', $seconds)
	  || die "could not run victim: $!\n";
	while (!IO::Select->new($victim)->can_read(0.05))
	{
		my $now = Gateway::resident($pid);

		$most = $now if $now > $most;
	}
	$line = <$victim>;
	close($victim) || die "tests/bench/run: failed: victim\n";
	return ({ split ' ', $line }, $most);
}

# bench_bulk_memory has clients move bodies both ways, half of each slowly, and
# looks at the gateway's memory and at another client.
sub bench_bulk_memory
{
	my ($pid, $port, $id, $alone, $beside, $before, $most, @bodies);
	my $bytes = $body_mb * MIB;

	# none of them ends before the time is over
	settings('message_bus.max_body' => 1024 * 1024,
		'message_bus.max_upload_bytes' => 1024 * 1024);
	Gateway::roles_make();
	($pid, $port) = door_start();
	($id) = store($port, $bytes, '-c', 2);
	($alone) = watched($pid, $port);
	$before = Gateway::resident($pid);
	foreach my $client (1 .. $clients)
	{
		my $slow = $client % 4 < 2 ? ':slow' : '';

		push @bodies, $client % 2 ?
		  'up:' . upload_begin($bytes) . ":$bytes$slow" : "down:$id:$bytes$slow";
	}
	my $carrier = open2(my $out, my $in, program('carry'), '-p', $port, '-e',
		@bodies);

	($beside, $most) = watched($pid, $port);
	close($in);
	my %moved = split ' ', <$out>;
	waitpid $carrier, 0;
	die "tests/bench/run: carry failed\n" if $? != 0;
	Gateway::stop($pid);
	report_alone(
		bench => 'bulk_memory',
		unit => 'MiB',
		name => 'memory',
		value => ($most - $before) / 1024,
		target => 64,
		better => 'lower',
		more => { before => short($before / 1024), clients => $clients,
			rate => short($moved{bytes} / $moved{seconds} / MIB) });
	foreach my $what (qw(publish claim))
	{
		report_alone(
			bench => "bulk_others_$what",
			unit => 'ratio',
			name => 'ratio',
			value => $beside->{"${what}_p99_us"} / $alone->{"${what}_p99_us"},
			target => 3,
			better => 'lower',
			more => { map { ($_ => $beside->{"${what}_${_}_us"},
				"alone_$_" => $alone->{"${what}_${_}_us"}) } qw(p50 p99) });
	}
}

1;
