# tests/t/lib/MessageBus/Test.pm
#
# What the TAP tests share: clusters with the extension's library preloaded,
# statements that must fail, the gateway, and load that is killed.
#
# It builds on PostgreSQL::Test::Cluster, which the server's development
# package installs.  tests/run sets the environment that both need; MBUS_TREE
# is the project's directory.

package MessageBus::Test;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(bus_node bus_conf bus_ready create_bus sql_fails wait_for
  worker_pid gateway_start gateway_stop gateway_alive load_start load_count
  load_stop load_verify kill_rounds restart_killed node_processes);

my $tree = $ENV{MBUS_TREE} || die "MBUS_TREE is not set\n";
my %started;
my $timeout = $PostgreSQL::Test::Utils::timeout_default || 180;

# bus_conf returns the settings that every cluster with the bus needs.
sub bus_conf
{
	my (@databases) = @_;

	return "shared_preload_libraries = 'message_bus'\n"
	  . "message_bus.databases = '"
	  . join(',', @databases) . "'\n";
}

# bus_node makes and starts a cluster.  Options: databases (default postgres),
# conf (more settings), streaming (standbys may connect).
sub bus_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(
		allows_streaming => $option{streaming} ? 1 : 0,
		extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf',
		bus_conf(@{ $option{databases} || ['postgres'] })
		  . "restart_after_crash = on\n"
		  . "log_statement = none\n"
		  . "max_connections = 40\n"
		  . "shared_buffers = 16MB\n"
		  . ($option{conf} || ''));
	$node->start;
	return $node;
}

# create_bus creates the extension in a database and waits for its worker.
sub create_bus
{
	my ($node, $database) = @_;

	$database ||= 'postgres';
	$node->safe_psql($database, 'CREATE EXTENSION message_bus');
	bus_ready($node, $database);
}

# bus_ready waits until a database takes messages.
sub bus_ready
{
	my ($node, $database) = @_;

	$database ||= 'postgres';
	wait_for(
		"the bus in database $database",
		sub {
			my ($status, $out, $err) = $node->psql($database,
				q{SELECT message_bus.publish('default', '"ready?"')});
			return $status == 0;
		});
}

# wait_for waits until a function returns true, and returns what it returned.
# A psql that ends before it is told what to do is no answer.
sub wait_for
{
	my ($what, $function) = @_;
	my $deadline = time + $timeout;

	local $SIG{PIPE} = 'IGNORE';
	while (time < $deadline)
	{
		my $result = eval { $function->() };

		die $@ if $@ && $@ !~ /Broken pipe/;
		return $result if $result;
		sleep 0.02;
	}
	die "timed out waiting for $what\n";
}

# sql_fails checks that a statement fails with a SQLSTATE and that the text
# of the error, with its detail and hint, matches.
sub sql_fails
{
	my ($node, $database, $sql, $sqlstate, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql(
		$database, $sql,
		on_error_stop => 1,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return subtest $name => sub {
		isnt($status, 0, 'it fails');
		like($err, qr/ERROR:  \Q$sqlstate\E: /, "with SQLSTATE $sqlstate");
		like($err, $pattern, 'with a clear text');
	};
}

# worker_pid returns the process id of a database's worker, or ''.
sub worker_pid
{
	my ($node, $database) = @_;

	return $node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE datname = '$database' "
		  . "AND backend_type LIKE 'message_bus%worker%'");
}

# ----------
# The gateway
# ----------

# free_port returns a TCP port of the loopback address that nobody uses.
sub free_port
{
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => 0,
		Proto => 'tcp',
		Listen => 1) || die "no free port: $!\n";

	return $socket->sockport;
}

# gateway_start starts a gateway for a database and waits until it is ready.
# Options: port, and env, more of its settings.
sub gateway_start
{
	my ($node, $database, %option) = @_;
	my $port = $option{port} || free_port();
	my $log = $PostgreSQL::Test::Utils::log_path . '/gateway.log';
	my %env = (
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGDATABASE => $database,
		PGUSER => 'message_bus_gateway',
		EXAI_WS_HOST => '127.0.0.1',
		EXAI_WS_PORT => $port,
		MESSAGE_BUS_ROLE => 'authenticated',
		%{ $option{env} || {} });
	my $pid = fork // die "could not fork: $!\n";

	if ($pid == 0)
	{
		@ENV{ keys %env } = values %env;
		chdir $node->basedir;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $log);
		open(STDERR, '>>', $log);
		exec "$tree/gateway/message-bus-gateway";
		die "could not run the gateway: $!\n";
	}

	my $gateway = { pid => $pid, port => $port };

	$started{$pid} = $pid;

	wait_for(
		'the gateway',
		sub {
			die "the gateway ended, see $log\n" if !gateway_alive($gateway);
			return http_get($port, '/readyz') =~ m{^HTTP/1\.[01] 200};
		});
	return $gateway;
}

# gateway_alive says whether the process is still there.
sub gateway_alive
{
	my ($gateway) = @_;

	return 0 if !$gateway->{pid};
	return 1 if waitpid($gateway->{pid}, 1) == 0;    # WNOHANG
	delete $started{ $gateway->{pid} };
	$gateway->{pid} = 0;
	return 0;
}

# gateway_stop sends a signal and waits for the end.
sub gateway_stop
{
	my ($gateway, $signal) = @_;

	return if !$gateway->{pid};
	kill $signal || 'TERM', $gateway->{pid};
	waitpid $gateway->{pid}, 0;
	delete $started{ $gateway->{pid} };
	$gateway->{pid} = 0;
	return $?;
}

# http_get returns a response, or '' if there is none.
sub http_get
{
	my ($port, $path) = @_;
	my $socket = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $port,
		Proto => 'tcp',
		Timeout => 5) || return '';

	print $socket "GET $path HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	  . "Connection: close\r\n\r\n";
	local $/;
	return <$socket> // '';
}

# ----------
# Load, and killing it
# ----------

# load_start starts a program that publishes random bytes until SIGTERM and
# writes a ledger (tests/crash/load.c tells its form).
sub load_start
{
	my ($node, $database, $channel, @command) = @_;
	my $ledger = $node->basedir . "/ledger_$channel";
	my %env = (
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGDATABASE => $database,
		PGUSER => $ENV{USER} || getpwuid($>));
	my $pid;

	@command = ("$tree/tests/bin/crash_load", 'publish', $channel, $ledger, 8)
	  if !@command;
	@command = map { $_ eq 'LEDGER' ? $ledger : $_ } @command;
	$pid = fork // die "could not fork: $!\n";
	if ($pid == 0)
	{
		@ENV{ keys %env } = values %env;
		exec @command or die "could not run $command[0]: $!\n";
	}
	$started{$pid} = $pid;
	return {
		pid => $pid,
		ledger => $ledger,
		channel => $channel,
		env => \%env,
		offset => 0,
		count => { A => 0, E => 0, U => 0 }
	};
}

# load_count returns how many messages of an outcome (A, E, U) there are.
sub load_count
{
	my ($load, $outcome) = @_;

	if (open(my $fh, '<', $load->{ledger}))
	{
		seek($fh, $load->{offset}, 0);
		while (my $line = <$fh>)
		{
			last if $line !~ /\n$/;
			$load->{offset} += length $line;
			$load->{count}{ substr($line, 0, 1) }++;
		}
	}
	die "the load ended by itself\n"
	  if $load->{pid} && waitpid($load->{pid}, 1) != 0;
	return $load->{count}{$outcome};
}

# load_stop lets the load finish its calls and checks that it ends well.
sub load_stop
{
	my ($load) = @_;

	kill 'TERM', $load->{pid};
	waitpid $load->{pid}, 0;
	delete $started{ $load->{pid} };
	$load->{pid} = 0;
	is($?, 0, 'the load ended well');
}

# load_verify compares what is stored with the ledger.
sub load_verify
{
	my ($load) = @_;
	my ($out, $err, %count);

	local @ENV{ keys %{ $load->{env} } } = values %{ $load->{env} };
	IPC::Run::run(
		[
			"$tree/tests/bin/crash_load", 'verify', $load->{channel},
			$load->{ledger}
		],
		'>', \$out, '2>', \$err);
	diag($err) if $err;
	note($out);
	%count = $out =~ /(\w+)=(\d+)/g;
	cmp_ok($count{acknowledged} // 0,
		'>=', 1000, 'at least 1,000 acknowledged messages');
	cmp_ok($count{unknown} // 0, '>', 0, 'calls were in flight');
	is($count{lost}, 0, 'every acknowledged message is there');
	is($count{wrong}, 0, 'every message there has the right bytes');
	is($count{partial}, 0, 'no call is stored in part');
	is($count{strange}, 0, 'nothing else is there');
	return \%count;
}

# kill_rounds runs load while something is killed again and again, and then
# verifies.  Options: node, database, channel, rounds, kill (a function that
# kills and returns true if it did), recover (one that brings back what does
# not come back by itself), command (other load).
sub kill_rounds
{
	my (%option) = @_;
	my $rounds = $option{rounds} || 20;
	my $need = int(1000 / $rounds) + 10;
	my $load = load_start($option{node}, $option{database} || 'postgres',
		$option{channel}, @{ $option{command} || [] });
	my $in_flight = 0;

	foreach my $round (1 .. $rounds)
	{
		my $acknowledged = load_count($load, 'A');
		my $unknown = load_count($load, 'U');
		my $noticed;

		wait_for("round $round: acknowledged messages",
			sub { load_count($load, 'A') >= $acknowledged + $need });
		sleep rand 0.1;
		wait_for("round $round: somebody to kill", $option{kill});
		$option{recover}->() if $option{recover};
		$noticed = time + 10;
		sleep 0.02
		  until load_count($load, 'U') > $unknown || time > $noticed;
		$in_flight++ if load_count($load, 'U') > $unknown;
	}
	is($in_flight, $rounds,
		"calls were in flight at each of $rounds kills");
	my $before_end = load_count($load, 'A');
	wait_for('the bus to take messages again',
		sub { load_count($load, 'A') > $before_end });
	load_stop($load);
	bus_ready($option{node}, $option{database});
	return load_verify($load);
}

# restart_killed starts a node whose postmaster was killed, as soon as the
# processes that it left behind are gone.  Where nobody collects orphans, the
# dead postmaster stays as a zombie, which its lock files take for alive.
sub restart_killed
{
	my ($node) = @_;
	my $data = $node->data_dir;
	my ($pid) = slurp_file("$data/postmaster.pid") =~ /^(\d+)/;

	wait_for(
		'the processes of a killed node to end',
		sub { return !node_processes($node) });
	unlink "$data/postmaster.pid",
	  $node->host . '/.s.PGSQL.' . $node->port . '.lock'
	  if -e "/proc/$pid";
	$node->start;
}

# node_processes returns the ids of all processes of a node.
sub node_processes
{
	my ($node) = @_;
	my $data = $node->data_dir;

	return map { m{(\d+)} }
	  grep { (readlink($_) // '') eq $data } glob('/proc/[0-9]*/cwd');
}

# what was started ends with the test, also when that dies
END
{
	my $status = $?;

	foreach my $pid (values %started)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

1;
