# tests/t/043_clock.t
#
# The server's clock is set back and jumps forward: nothing comes early,
# nothing is dropped, until the clock is believed.

use strict;
use warnings;

use MessageBus::Clock;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node =
  clock_node('clock', conf => "message_bus.worker_interval = 100ms\n");

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

# stored returns how many rows the tables have of a channel.
sub stored
{
	my ($channel) = @_;

	return query(
		qq{SELECT count(*) FROM message_bus.message JOIN message_bus.channel
			USING (channel_id) WHERE name = '$channel'});
}

# passes waits until the worker has made some full passes.
sub passes
{
	my $passes = query('SELECT passes FROM message_bus.worker_status');

	wait_for('passes of the worker',
		sub {
			query('SELECT passes FROM message_bus.worker_status') > $passes + 5;
		});
	return;
}

# said waits for a line of the log.
sub said
{
	my ($pattern, $name) = @_;

	wait_for($name, sub { slurp_file($node->logfile) =~ $pattern });
	pass($name);
	return;
}

create_bus($node);
query(q{SELECT message_bus.create_channel('c', ttl => '3 hours',
	backoff => '1 second');
	SELECT message_bus.create_subscription('c', 'default');
	SELECT message_bus.publish('c', '"early"', delay => '1 millisecond');
	SELECT message_bus.publish('c', '"before"', delay => '5 minutes')});
is(claimed('9 s'), 'early|1', 'a message is claimed before');

# set back
clock_set(-600);
cmp_ok(
	abs(query('SELECT extract(epoch FROM clock_timestamp())') - time + 600),
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
wait_for(
	'the worker to retire all the same',
	sub {
		query('SELECT message_bus.expire()');
		return stored('short') == 0;
	});
passes();
like(query('SELECT clock_off FROM message_bus.worker_status'),
	qr/^-00:/, 'worker_status tells that the clock is behind');
said(qr/LOG:  the server's clock was set back by (599|600) seconds/,
	'so does the log');
clock_pass(180);
passes();
is(claimed('0'), '', 'nothing delayed comes after three minutes');
clock_pass(140);
is(claimed('9 s'), "before|2\ndelayed|2", 'but after five');
clock_set(0);
wait_for('the clock to be right again',
	sub { query('SELECT message_bus.clock_off() IS NULL') eq 't' });
said(qr/LOG:  message_bus goes by the server's clock again/,
	'the log tells that');

# a step that is believed
clock_set(240);
is( query(q{SELECT abs(extract(epoch FROM message_bus.clock()
	- clock_timestamp())) < 5}),
	't',
	'a small step is followed');

# forward
query(q{SELECT message_bus.publish('c', '"kept"', ttl => '90 minutes');
	SELECT message_bus.publish('c', '"delayed"', delay => '30 minutes');
	SELECT message_bus.publish('c', '"claimed"', ttl => '90 minutes')});
my $rows = stored('c');
clock_set(240 + 7200);
query('SELECT message_bus.expire()');
passes();
is( query(q{SELECT count(*) FROM message_bus.peek('c') WHERE payload::text
	= '"kept"'}),
	1,
	'a jump forward expires nothing');
is(stored('c'), $rows, 'nor drops anything');
is( query(q{SELECT payload #>> '{}' FROM message_bus.claim('c',
	lease_for => '50 minutes')}),
	'kept',
	'what was not claimed can be');
is(claimed('0'), 'claimed|1', 'and acked, and nothing comes early');
like(query('SELECT clock_off FROM message_bus.worker_status'),
	qr/^0[12]:/, 'worker_status tells of the jump');
said(qr/LOG:  the server's clock was set forward by (7199|7200) seconds/,
	'so does the log');

# the hour
clock_pass(2000);
is(claimed('9 s'), 'delayed|1', 'a delay ends in time');
clock_pass(1500);
passes();
is(claimed('9 s'), 'kept|1', 'so does a lease');
query(q{SELECT message_bus.publish('c', '"last"', ttl => '90 minutes')});
is(query('SELECT message_bus.clock_off() IS NULL'),
	'f', 'the clock is not believed within an hour');
clock_pass(150);
wait_for('the clock to be believed',
	sub { query('SELECT message_bus.clock_off() IS NULL') eq 't' });
is(claimed('0'), '', 'then what it says has expired is not delivered');
said(
	qr/goes by the server's clock again.*goes by the server's clock again/s,
	'the log tells that it is believed');

# an administrator believes it
query(q{SELECT message_bus.publish('c', '"kept"')});
clock_set(240 + 7200 + 14400);
wait_for('the worker to see it',
	sub { query('SELECT message_bus.clock_off() IS NOT NULL') eq 't' });
is( query(
		q{SELECT count(*) FROM message_bus.messages WHERE channel = 'c'}),
	1,
	'the view shows what has not expired');
is( $node->psql(
		'postgres',
		q{SET ROLE pg_monitor; SELECT message_bus.clock_accept()}),
	3,
	'only who may can accept a clock');
query('SELECT message_bus.clock_accept()');
is(query('SELECT message_bus.clock_off()'), '', 'the clock is accepted');
is( query(q{SELECT abs(extract(epoch FROM message_bus.clock()
	- clock_timestamp())) < 5}),
	't',
	'and the bus goes by it');
query('SELECT message_bus.expire()');
wait_for('what has expired to be dropped', sub { stored('c') == 0 });

$node->stop;
done_testing();
