# tests/t/043_clock.t
#
# The server's clock is set back and jumps forward (libfaketime): nothing
# comes early, nothing is dropped, until the clock is believed.

use strict;
use warnings;

use File::Basename qw(dirname);
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my ($library) = glob '/usr/lib/*/faketime/libfaketime.so.1';
my $file = PostgreSQL::Test::Utils::tempdir() . '/faketime';
my $node;

plan skip_all => 'libfaketime is not installed' if !$library;

# set_clock sets the server's clock to an offset from the true time.
sub set_clock
{
	my ($offset) = @_;

	open my $out, '>', "$file.new" or die "$file.new: $!\n";
	print $out "$offset\n";
	close $out;
	rename "$file.new", $file or die "$file: $!\n";
}

# query returns what a query returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# claimed returns the payloads that a claim gets, and acks them.
sub claimed
{
	my ($wait) = @_;

	return query(
		"SELECT payload #>> '{}', message_bus.ack(lease) FROM message_bus.claim('c', "
		  . "batch => 10, wait => '$wait') ORDER BY id");
}

set_clock('+0');
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FAKETIME_TIMESTAMP_FILE} = $file;
	local $ENV{FAKETIME_NO_CACHE} = 1;
	local $ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
	$node = bus_node('clock', conf => "message_bus.worker_interval = 100ms\n");
}
create_bus($node);
query(q{SELECT message_bus.create_channel('c', ttl => '1 hour',
	backoff => '1 second');
	SELECT message_bus.create_subscription('c', 'default');
	SELECT message_bus.publish('c', '"early"', delay => '1 millisecond')});
is(claimed('9 s'), 'early|1', 'a message is claimed before');

# set back
set_clock('-10m');
cmp_ok(abs(query('SELECT extract(epoch FROM clock_timestamp())') - time + 600),
	'<', 60, 'the clock is set back by ten minutes');
query(q{SELECT message_bus.publish('c', '"delayed"', delay => '5 minutes');
	SELECT message_bus.publish('c', '"soon"', delay => '2 seconds');
	SELECT message_bus.publish('c', '"now"')});
is(claimed('0'), 'now|1', 'no delayed message comes early');
my $start = time;
is(claimed('20 s'), 'soon|1', 'one comes after its delay');
cmp_ok(time - $start, '<', 8, 'and not ten minutes later');
query(q{SELECT message_bus.publish('c', '"leased"')});
query(q{SELECT id FROM message_bus.claim('c', lease_for => '500 ms')});
$start = time;
is(claimed('20 s'), 'leased|1', 'a lease ends, and is tried again');
cmp_ok(time - $start, '<', 8, 'in time');
query(q{SELECT message_bus.create_channel('short', ttl => '1 second');
	SELECT message_bus.publish('short', '1')});
wait_for('the worker to retire all the same',
	sub {
		query(q{SELECT count(*) FROM message_bus.message JOIN
			message_bus.channel USING (channel_id) WHERE name = 'short'}) == 0;
	});
ok(query('SELECT clock_off FROM message_bus.worker_status') =~ /^-00:/,
	'worker_status tells that the clock is behind');
set_clock('+0');
wait_for('the clock to be right again',
	sub { query('SELECT message_bus.clock_off() IS NULL') eq 't' });

# forward
query(q{SELECT message_bus.publish('c', '"kept"')});
set_clock('+2h');
sleep 1;
query('SELECT message_bus.expire()');
is( query(q{SELECT count(*) FROM message_bus.peek('c') WHERE payload::text
	= '"kept"'}),
	1,
	'a jump forward expires nothing');
is( query(q{SELECT count(*) FROM message_bus.messages WHERE channel = 'c'
	AND expires_at > message_bus.clock()}),
	query(q{SELECT count(*) FROM message_bus.message JOIN
		message_bus.channel USING (channel_id) WHERE name = 'c'}),
	'nor drops anything');
is(claimed('0'), 'kept|1', 'what was not claimed can be');
ok(query('SELECT clock_off FROM message_bus.worker_status') =~ /^0[12]:/,
	'worker_status tells of the jump');
# an administrator believes it
query('SELECT message_bus.clock_accept()');
is(query('SELECT message_bus.clock_off()'), '', 'the clock is accepted');
is( query(q{SELECT abs(extract(epoch FROM message_bus.clock()
	- clock_timestamp())) < 5}),
	't',
	'and the bus goes by it');
query('SELECT message_bus.expire()');
wait_for('what has expired to be dropped',
	sub {
		query(q{SELECT count(*) FROM message_bus.message JOIN
			message_bus.channel USING (channel_id) WHERE name = 'c'}) == 0;
	});
is( $node->psql('postgres',
		q{SET ROLE pg_monitor; SELECT message_bus.clock_accept()}),
	3,
	'only who may can accept a clock');

$node->stop;
done_testing();
