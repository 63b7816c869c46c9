# tests/bench/Hostile.pm
#
# A client that behaves, beside attacks; README.md says what each is.

package Hostile;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha256);
use Exporter 'import';
use File::Basename qw(dirname);
use List::Util qw(max);
use MIME::Base64 qw(encode_base64url);
use Time::HiRes qw(sleep);

use lib dirname(abs_path(__FILE__));
use Gateway;
use Measure;
use Server;

our @EXPORT = qw(bench_hostile);

my $key = 'the key of the tokens of this bench';
my $many = 60;    # requests of a batch
my $port;    # of the gateway

# name, what attacks, and what it takes beforehand
my @attacks = (
	[ unfinished => sub { storm({ connections => 64, unfinished => 1 }, large()) } ],
	[ failing => sub { storm({ connections => 4, in_flight => 16 },
				request('publish', '"channel":"none","payload":1')) } ],
	[ large => sub { storm({ connections => 4, in_flight => 2 }, large()) } ],
	[ leases => sub { storm({ connections => 1, in_flight => 16, token => token('attacker') },
				request('claim', '"channel":"theirs","batch":1000,"lease_for":"7 days"')) } ],
	[ escapes => sub { storm({ connections => 4, in_flight => 16, token => token('attacker') },
				request('g\u0065t', '"id":' . sql('SELECT id FROM message_bus.messages'
					  . " WHERE channel = 'theirs' AND size > 1000000 LIMIT 1"))) } ],
	[ locks => sub { (blocker(), storm({ connections => 4, in_flight => 2, token => token('attacker') },
				batch('publish', '"channel":"theirs","payload":1,"transaction_id":"held"'))) } ],
	[ peek => sub { storm({ connections => 2, in_flight => 2, token => token('attacker') },
				batch('peek', '"channel":"theirs"', 20)) } ],
	[ keyed => sub { storm({ connections => 4, in_flight => 2, token => token('attacker') },
				batch('publish', '"channel":"theirs","key":"%d","payload":1')) } ],
	[ waits => sub { storm({ connections => 1, in_flight => 64, token => token('attacker') },
				request('claim', '"channel":"empty","wait":"20 s"')) } ],
	[ batches => sub { storm({ connections => 20, in_flight => 2 },
				batch('get', '"id":1')) } ],
	[ channels => sub { channels() } ]);

# request returns the text of a request of JSON-RPC.
sub request
{
	my ($method, $params) = @_;

	return qq({"jsonrpc":"2.0","id":1,"method":"$method","params":{$params}});
}

# batch returns the text of a batch of them; %d is a number of its own.
sub batch
{
	my ($method, $params, $n) = @_;

	return '['
	  . join(',', map { my $number = $_; request($method, $params =~ s/%d/$number/r) }
		  1 .. $n // $many) . ']';
}

# large returns the text of a publish of 15 MB, to a channel that is not the
# attacker's.
sub large
{
	return request('publish',
		'"channel":"bench","payload":"' . 'x' x 15_000_000 . '"');
}

# token returns a token for a role.
sub token
{
	my ($role) = @_;
	my $text = join('.',
		map { encode_base64url($_) } '{"alg":"HS256"}',
		qq({"role":"bench_$role","sub":"$role","exp":9999999999}));

	return "$text." . encode_base64url(hmac_sha256($text, $key));
}

# storm starts sockets that send a text over and over, with what they leave of
# the processors, as if they were another machine's.
sub storm
{
	my ($how, $text) = @_;
	my $file = work_directory() . '/storm.txt';

	write_file($file, $text);
	return Gateway::start('storm', {}, 'nice', '-n', 19, program('storm'),
		'-p', $port,
		'-c', $how->{connections}, '-f', $how->{in_flight} // 1,
		$how->{unfinished} ? '-u' : (),
		$how->{token} ? ('-t', $how->{token}) : (), $file);
}

# blocker holds up who publishes with a transaction id of its own.
sub blocker
{
	return psql('blocker', 'BEGIN',
		q{SELECT message_bus.publish('theirs', '1', transaction_id => 'held')},
		'SELECT pg_sleep(3600)');
}

# channels makes channels and subscriptions without end.
sub channels
{
	return psql('channels', 'SET ROLE bench_attacker', q{DO $$ BEGIN
		FOR i IN 1 .. 1000000 LOOP
			BEGIN
				PERFORM message_bus.create_channel('mine_' || i);
				PERFORM message_bus.create_subscription('mine_' || i, 's');
				PERFORM message_bus.claim('mine_' || i, 's');
			EXCEPTION WHEN configuration_limit_exceeded THEN
				PERFORM pg_sleep(0.001);
			END;
			COMMIT;
		END LOOP; END $$});
}

# psql starts statements that go on.
sub psql
{
	my ($name, @statements) = @_;

	return Gateway::start($name, {}, 'nice', '-n', 19,
		pg_config('--bindir') . '/psql', '-Xq', map { ('-c', $_) } @statements);
}

# roles_make makes the roles of the bench, unless they are there.
sub roles_make
{
	sql('SET client_min_messages = error',
		"DO \$\$ BEGIN IF to_regrole('bench_relay') IS NULL THEN"
		  . ' CREATE ROLE bench_victim; CREATE ROLE bench_attacker;'
		  . ' CREATE ROLE bench_anon; CREATE ROLE bench_relay LOGIN'
		  . ' NOINHERIT IN ROLE bench_victim, bench_attacker, bench_anon;'
		  . ' END IF; END $$');
}

# bus_start makes the bus anew, with the victim's channel and the attacker's,
# and starts a gateway.
sub bus_start
{
	my $jwks = sprintf '{"keys":[{"kty":"oct","alg":"HS256","k":"%s"}]}',
	  encode_base64url($key);

	bus_reset(
		'GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[]),'
		  . ' message_bus.open_session, message_bus.close_session TO bench_relay',
		'GRANT EXECUTE ON FUNCTION message_bus.create_channel,'
		  . ' message_bus.create_subscription TO bench_attacker',
		"SELECT message_bus.set_jwt_keys('$jwks')",
		"SELECT message_bus.grant_channel('bench', 'bench_victim', 'all')",
		(map { ("SELECT message_bus.create_channel('$_')",
			  "SELECT message_bus.grant_channel('$_', 'bench_attacker', 'all')")
		} qw(theirs empty)),
		q{SELECT count(message_bus.publish('theirs', to_json(repeat('x', 2000000))))
			FROM generate_series(1, 5)},
		q{SELECT count(message_bus.publish_batch_bytes('theirs',
			array_fill('x'::bytea, ARRAY[1000]))) FROM generate_series(1, 200)},
		'CHECKPOINT');
	return Gateway::gateway_run(
		PGUSER => 'bench_relay',
		MESSAGE_BUS_ANON_ROLE => 'bench_anon');
}

# victim measures a client that behaves, while an attack goes on.
sub victim
{
	my ($attack, $length) = @_;
	my ($gateway, @attackers, $result);

	($gateway, $port) = bus_start();
	@attackers = $attack->() if $attack;
	sleep 1 if @attackers;
	$result = measure('victim', '-p', $port, '-t', token('victim'),
		'-s', $length);
	Gateway::stop($_) foreach (reverse(@attackers), $gateway);
	# backends of a psql that was ended go on
	sql(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE application_name = 'psql' AND pid <> pg_backend_pid()});
	$result->{text} = join(', ',
		map { sprintf '%s %.0f/s, p50 %.0f us, p99 %.0f us',
			$_, map { $result->{$_} } "${_}_rate", "${_}_p50_us", "${_}_p99_us" }
		  qw(publish claim)) . ", $result->{errors} errors";
	return $result;
}

# bench_hostile compares a client that behaves beside each attack with itself
# beside none.
sub bench_hostile
{
	my @wanted = split ',', $ENV{BENCH_ATTACKS} // '';

	settings();
	roles_make();
	foreach my $attack (@attacks)
	{
		my ($name, $start) = @$attack;
		my $results;

		next if @wanted && !grep { $_ eq $name } @wanted;
		say_line('hostile: %s', $name);
		$results = alternate(
			sub { },
			[ beside => sub { victim($start, @_) } ],
			[ alone => sub { victim(undef, @_) } ]);
		report_call($name, $_, $results) foreach qw(publish claim);
	}
}

# report_call reports the longest latencies of one call.
sub report_call
{
	my ($name, $call, $results) = @_;

	report(
		bench => "hostile_${name}_$call",
		unit => 'us',
		figure => "${call}_p99_us",
		ours => $results->{beside},
		base => $results->{alone},
		target => 3,
		better => 'lower',
		more => {
			errors => max(values_of($results->{beside}, 'errors')),
			map {
				(
					"ours_$_" => middle($results->{beside}, "${call}_$_"),
					"base_$_" => middle($results->{alone}, "${call}_$_"))
			} qw(rate p50_us max_us)
		});
}

1;
