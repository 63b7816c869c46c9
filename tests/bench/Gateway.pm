# tests/bench/Gateway.pm
#
# The benches of the gateway; README.md says what each measures.

package Gateway;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(remove_tree);
use IO::Socket::INET;
use JSON::PP;
use Time::HiRes qw(sleep);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_gateway_publish bench_gateway_direct
  bench_gateway_channels bench_idle_connections);

my $idle = $ENV{BENCH_CONNECTIONS} || 10_000;

# connections and messages in flight on each
my @layouts = ([ 8, 16 ], [ 1, 1 ], [ 64, 16 ]);
my @channel_layouts = ([ 60, 16 ], [ 1000, 1 ]);

my %running;    # process id => name, of what is to be ended
my $main_pid = $$;

END
{
	my $status = $?;

	if ($$ == $main_pid)
	{
		stop($_) foreach keys %running;
	}
	$? = $status;
}

# start runs a server as the cluster's user and returns its process id.  Its
# output goes to a file of the work directory.
sub start
{
	my ($name, $environment, @command) = @_;
	my $log = work_directory() . "/$name.log";
	my $pid;

	unlink $log;
	$pid = fork // die "could not fork: $!\n";
	if ($pid == 0)
	{
		@ENV{ keys %$environment } = values %$environment;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', $log) || die "could not open $log: $!\n";
		open(STDERR, '>&', \*STDOUT);
		exec { (as_user(@command))[0] } as_user(@command)
		  or die "could not run $command[0]: $!\n";
	}
	$running{$pid} = $name;
	return $pid;
}

# stop ends a server.
sub stop
{
	my ($pid) = @_;

	kill 'TERM', $pid;
	waitpid $pid, 0;
	delete $running{$pid};
}

# logged waits for a line of a server's output and returns what it captures.
sub logged
{
	my ($pid, $pattern) = @_;
	my $name = $running{$pid};
	my $log = work_directory() . "/$name.log";

	foreach (1 .. 300)
	{
		if (open(my $fh, '<', $log))
		{
			local $/;
			return $1 if (<$fh> // '') =~ $pattern;
		}
		sleep 0.1;
	}
	die "tests/bench/run: waited in vain for $name, see $log\n";
}

# get asks a gateway over HTTP and returns status and body.
sub get
{
	my ($port, $path) = @_;
	my $socket = IO::Socket::INET->new(
		PeerHost => '127.0.0.1',
		PeerPort => $port) || die "could not connect to port $port: $!\n";
	my $answer;

	print $socket "GET $path HTTP/1.1\r\nHost: localhost\r\n"
	  . "Connection: close\r\n\r\n";
	local $/;
	$answer = <$socket>;
	return $answer =~ m{^HTTP/1\.\d (\d+).*?\r\n\r\n(.*)}s;
}

# gateway_start makes the bus anew and starts a gateway; it returns process
# id and port.
sub gateway_start
{
	my (%settings) = @_;

	bus_reset(
		"GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])"
		  . ' TO bench_gateway',
		"SELECT message_bus.grant_channel('bench', 'bench_app', 'all')",
		'CHECKPOINT');
	return gateway_run(
		PGUSER => 'bench_gateway',
		MESSAGE_BUS_ROLE => 'bench_app',
		MESSAGE_BUS_MAX_IN_FLIGHT => 64,
		%settings);
}

# gateway_run starts a gateway for the bus as it is.
sub gateway_run
{
	my (%settings) = @_;
	my ($pid, $port, $why);

	$pid = start(
		'gateway',
		{
			EXAI_WS_PORT => 0,
			MESSAGE_BUS_LOG_FRAMES => 'false',
			%settings
		},
		gateway_program());
	$port = logged($pid, qr/"event":"ready".*?"port":(\d+)/);
	foreach (1 .. 100)
	{
		my ($status, $body) = get($port, '/readyz');

		return ($pid, $port) if $status == 200;
		$why = $body;
		sleep 0.1;
	}
	die "tests/bench/run: the gateway is not ready: $why\n";
}

# roles_make makes the roles of the gateway, unless they are there.
sub roles_make
{
	sql('SET client_min_messages = error',
		"DO \$\$ BEGIN IF to_regrole('bench_gateway') IS NULL THEN"
		  . ' CREATE ROLE bench_app; CREATE ROLE bench_gateway LOGIN'
		  . ' NOINHERIT IN ROLE bench_app; END IF; END $$');
}

# publish_gateway measures publishing through the gateway.
sub publish_gateway
{
	my ($connections, $in_flight, $length) = @_;
	my ($pid, $port) = gateway_start();
	my $result = measure('socket', '-p', $port, '-c', $connections,
		'-f', $in_flight, '-s', $length, 'bus');
	my $health = decode_json((get($port, '/healthz'))[1]);

	stop($pid);
	$result->{batch} = $health->{frames_in} / ($health->{batches} || 1);
	return described($result, sprintf ', %.1f messages a batch',
		$result->{batch});
}

# nats_start starts NATS with an empty store, whose writes are durable before
# they are acknowledged.  Before version 2.10 it has no setting for that;
# then the file system is told to write at once what is written to its files.
sub nats_start
{
	my $store = work_directory() . '/nats';
	my $conf = work_directory() . '/nats.conf';
	my $port = free_port();
	my $websocket = free_port();
	my $durable = 'sync_interval: always';
	my $text = <<"CONF";
listen: "127.0.0.1:$port"
jetstream { store_dir: "$store", $durable }
websocket { listen: "127.0.0.1:$websocket", no_tls: true }
CONF

	remove_tree($store);
	system(as_user('mkdir', $store)) == 0 || die "could not make $store\n";
	write_file($conf, $text);
	if (system("nats-server -t -c '$conf' >'$conf.log' 2>&1") != 0)
	{
		$durable = 'chattr +S';
		system(as_user('chattr', '+S', $store)) == 0
		  || die "tests/bench/run: nats-server knows no sync_interval, and"
		  . " the file system no chattr +S: acknowledgements cannot be made"
		  . " durable\n";
		write_file($conf, $text =~ s/, sync_interval: always//r);
	}
	return (start('nats', {}, 'nats-server', '-c', $conf),
		$websocket, $durable);
}

# free_port returns a port that nobody listened on just now.
sub free_port
{
	my $socket = IO::Socket::INET->new(
		LocalHost => '127.0.0.1',
		LocalPort => 0,
		Listen => 1) || die "could not listen: $!\n";

	return $socket->sockport;
}

# publish_nats measures publishing to JetStream.
sub publish_nats
{
	my ($connections, $in_flight, $length) = @_;
	my ($pid, $port, $durable) = nats_start();
	my $result;

	logged($pid, qr/(Server is ready)/);
	$result = measure('socket', '-p', $port, '-c', $connections,
		'-f', $in_flight, '-s', $length, 'nats');
	stop($pid);
	$result->{durable} = $durable;
	return described($result, ", $durable");
}

# echo measures a bare server of the gateway's library.
sub echo
{
	my ($connections, $in_flight, $length) = @_;
	my $pid = start('echo', {}, program('echo'));
	my $port = logged($pid, qr/^(\d+)$/m);
	my $result = measure('socket', '-p', $port, '-c', $connections,
		'-f', $in_flight, '-s', $length, 'echo');

	stop($pid);
	return described($result, '');
}

# bench_gateway_channels compares sockets that each publish to a channel of
# their own with as many that publish to one.
sub bench_gateway_channels
{
	settings();
	roles_make();
	foreach my $layout (@channel_layouts)
	{
		my $results;

		say_line('gateway_channels: %d connections, %d in flight on each',
			@$layout);
		$results = alternate(
			sub { },
			[ channels => sub { publish_channels('channels', @$layout, @_) } ],
			[ one => sub { publish_channels('bus', @$layout, @_) } ]);
		report(
			bench => "gateway_channels_$layout->[0]",
			unit => 'messages/s',
			figure => 'rate',
			ours => $results->{channels},
			base => $results->{one},
			target => 0.77,
			better => 'higher',
			more => {
				connections => $layout->[0],
				in_flight => $layout->[1],
				map {
					(
						"ours_$_" => middle($results->{channels}, $_),
						"base_$_" => middle($results->{one}, $_))
				} qw(numbers segments p99_us)
			});
	}
}

# publish_channels measures publishing through the gateway to one channel or
# many, and what of row numbers and segments a message takes.
sub publish_channels
{
	my ($mode, $connections, $in_flight, $length) = @_;
	my ($pid, $port) = gateway_start(
		MESSAGE_BUS_MAX_CONNECTIONS => $connections + 10);
	my ($result, %before, %after);

	sql("SELECT message_bus.create_channel('bench_' || n, ttl => '1 day'),"
		  . " message_bus.grant_channel('bench_' || n, 'bench_app', 'all')"
		  . " FROM generate_series(1, $connections) AS n");
	%before = counters();
	$result = measure('socket', '-p', $port, '-c', $connections,
		'-f', $in_flight, '-s', $length, $mode);
	%after = counters();
	stop($pid);
	$result->{segments} =
	  $after{segments_opened_total} - $before{segments_opened_total};
	$result->{numbers} =
	  ($after{ids_reserved_total} -
		  $after{ids_returned_total} -
		  $before{ids_reserved_total} +
		  $before{ids_returned_total}) /
	  ($after{messages_published_total} - $before{messages_published_total});
	return described($result,
		sprintf ', %.2f row numbers a message, %d segments opened',
		@$result{qw(numbers segments)});
}

# counters returns the bus's metrics by name.
sub counters
{
	return split / /,
	  sql(q{SELECT string_agg(metric || ' ' || value, ' ') FROM message_bus.metrics}
	  );
}

sub described
{
	my ($result, $more) = @_;

	$result->{text} = sprintf('%8.0f messages/s, p50 %.0f us, p99 %.0f us',
		@$result{qw(rate p50_us p99_us)})
	  . $more;
	return $result;
}

# bench_gateway_publish compares the gateway with NATS, and says what a bare
# echo does.
sub bench_gateway_publish
{
	settings();
	roles_make();
	foreach my $layout (@layouts)
	{
		my ($connections, $in_flight) = @$layout;
		my $first = $layout == $layouts[0];
		my $results;

		say_line('gateway_publish: %d connections, %d in flight on each',
			@$layout);
		$results = alternate(
			sub { },
			[ gateway => sub { publish_gateway(@$layout, @_) } ],
			[ nats => sub { publish_nats(@$layout, @_) } ],
			[ echo => sub { echo(@$layout, @_) } ]);
		report(
			bench => $first ? 'gateway_publish' :
			  "gateway_publish_${connections}x$in_flight",
			unit => 'messages/s',
			figure => 'rate',
			ours => $results->{gateway},
			base => $results->{nats},
			$first ? (target => 2, better => 'higher') : (),
			more => {
				connections => $connections,
				in_flight => $in_flight,
				base_durable_by => $results->{nats}[0]{durable},
				batch => middle($results->{gateway}, 'batch'),
				echo => middle($results->{echo}, 'rate'),
				map {
					(
						"ours_$_" => middle($results->{gateway}, $_),
						"base_$_" => middle($results->{nats}, $_))
				} qw(p50_us p99_us)
			});
	}
}

# bench_gateway_direct compares the gateway with a client of libpq whose
# batches are as large as the gateway's were.
sub bench_gateway_direct
{
	my @layout = @{ $layouts[0] };
	my ($batch, $results);

	settings();
	roles_make();
	$batch = sprintf '%.0f', publish_gateway(@layout, 1)->{batch};
	say_line(
		'gateway_direct: %d connections, %d in flight on each; directly:'
		  . ' batches of %d, 2 in flight',
		@layout, $batch);
	$results = alternate(
		sub { },
		[ gateway => sub { publish_gateway(@layout, @_) } ],
		[ direct => sub { publish_directly($batch, @_) } ]);
	report(
		bench => 'gateway_direct',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{gateway},
		base => $results->{direct},
		target => 0.5,
		better => 'higher',
		more => {
			batch => middle($results->{gateway}, 'batch'),
			base_batch => $batch + 0
		});
}

sub publish_directly
{
	my ($batch, $length) = @_;
	my $result;

	bus_reset('CHECKPOINT');
	$result = measure('pipeline', '-b', $batch, '-d', 2, '-s', $length);
	$result->{text} = sprintf '%8.0f messages/s', $result->{rate};
	return $result;
}

# bench_idle_connections measures what an idle connection takes of the
# gateway's memory.
sub bench_idle_connections
{
	my ($pid, $port, $before, $each, $client, $line);

	settings();
	roles_make();
	system('prlimit', '--pid', $$, '--nofile=' . ($idle + 1000)) == 0
	  || die "tests/bench/run: cannot have $idle connections\n";
	($pid, $port) = gateway_start(
		MESSAGE_BUS_MAX_CONNECTIONS => $idle + 10);
	measure('socket', '-p', $port, '-c', 8, '-f', 16, '-s', 1, 'bus');
	$before = resident($pid);
	open($client, '|-', 'sh', '-c', '"$@" >"$0"', work_directory() . '/idle',
		program('socket'), '-p', $port, '-c', $idle, 'idle')
	  || die "could not run the client: $!\n";
	foreach (1 .. 3000)
	{
		$line = decode_json((get($port, '/healthz'))[1]);
		last if $line->{connections_open} == $idle;
		sleep 0.1;
	}
	die "tests/bench/run: only $line->{connections_open} connections\n"
	  if $line->{connections_open} != $idle;
	$each = (resident($pid) - $before) / $idle;
	close($client);
	stop($pid);
	report_alone(
		bench => 'idle_connections',
		unit => 'KiB',
		name => 'memory',
		value => $each,
		target => 12,
		better => 'lower',
		more => { connections => $idle, before => $before });
}

# resident returns the resident memory of a process in KiB.
sub resident
{
	my ($pid) = @_;

	open(my $fh, '<', "/proc/$pid/status") || die "process $pid: $!\n";
	foreach my $line (<$fh>)
	{
		return $1 if $line =~ /^VmRSS:\s+(\d+) kB/;
	}
	die "process $pid has no memory\n";
}

1;
