# tests/t/057_recorded_reads.t
#
# Reads of transactions that cannot write are recorded by the worker: when it
# cannot, they wait and then fail; when it ends, or the server is shut down,
# they are not lost; a standby refuses them.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $primary = bus_node(
	'recorded',
	streaming => 1,
	conf => "message_bus.worker_interval = 60s\n");
my $standby = PostgreSQL::Test::Cluster->new('standby');

create_bus($primary);
$primary->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('c', record_reads => true);
	SELECT message_bus.publish_batch_bytes('c', array_fill('x'::bytea, ARRAY[10000]));
	SELECT message_bus.publish('c', '1', transaction_id => 'one');
	SELECT message_bus.publish('default', '1', transaction_id => 'two')});

sub events
{
	return $primary->safe_psql('postgres',
		q{SELECT count(*) FROM message_bus.event});
}

sub read_one
{
	return $primary->safe_psql('postgres',
		q{BEGIN READ ONLY; SELECT payload FROM message_bus.get_by_transaction('c', 'one'); COMMIT});
}

# the worker is told to end
is(read_one(), '1', 'a read of a READ ONLY transaction');
is(events(), 0, 'the worker has an interval of a minute');
$primary->safe_psql('postgres',
	'SELECT pg_terminate_backend(' . worker_pid($primary, 'postgres') . ')');
wait_for('the row', sub { events() == 1 });
pass('a worker that ends records it');

# a shutdown; and a rolled-back transaction
wait_for('the next worker', sub { worker_pid($primary, 'postgres') });
bus_ready($primary);
is(read_one(), '1', 'one more');
$primary->safe_psql('postgres',
	q{BEGIN; SELECT message_bus.retrieve_message('two'); ROLLBACK});
$primary->stop('fast');
$primary->start;
bus_ready($primary);
is(events(), 3, 'a shutdown loses none');

# a ring that is half full does not wait for the interval
my $peek = q{BEGIN READ ONLY; SELECT count(*) FROM message_bus.peek('c', max_messages => 10000); COMMIT};

is($primary->safe_psql('postgres', $peek), 10000, 'many at once');
wait_for('the rows', sub { events() >= 3 + 10000 });
pass('are recorded soon');

# where the worker cannot record, a read waits, and fails in the end
my $segment = $primary->safe_psql('postgres',
	q{SELECT max(id) >> 24 FROM message_bus.messages WHERE channel = 'c'});
my $before = events();
my $locker = $primary->background_psql('postgres');

$locker->query_safe("BEGIN; LOCK TABLE message_bus.event_$segment IN SHARE MODE");
my $returned = 0;
my $started;
my ($status, $out, $err);

for (1 .. 10)
{
	$started = time;
	($status, $out, $err) = $primary->psql('postgres', $peek,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	last if $status != 0 || $err =~ /ERROR/;
	$returned += $out;
}
like($err, qr/ERROR:  55000: the worker of message_bus did not record reads/,
	'the ring is full: a read fails by name');
cmp_ok(time - $started, '>', 25, 'after it has waited');
cmp_ok($returned, '<', 30000, 'and those before are bounded');
like(
	$primary->safe_psql('postgres',
		q{SELECT message_bus.publish('c', '2')}),
	qr/^\d+$/,
	'publishers are not held up');
$locker->query_safe('COMMIT');
$locker->quit;
wait_for('the rows', sub {
	$primary->safe_psql('postgres',
		q{SELECT message_bus.expire()});
	return events() >= $before + $returned });
pass('what was returned is recorded when the lock has gone');

# a standby
$primary->backup('backup');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
sql_fails($standby, 'postgres',
	q{SELECT * FROM message_bus.get_by_transaction('c', 'one')},
	'25006', qr/during recovery/, 'a standby cannot record');
sql_fails($standby, 'postgres',
	q{SELECT message_bus.retrieve_message('two')},
	'25006', qr/during recovery/, 'retrieve_message likewise');
is( $standby->safe_psql('postgres',
		q{SELECT payload FROM message_bus.get_by_transaction('default', 'two')}),
	'1',
	'what is not recorded is read');

# a crash loses no more than what was in memory
$primary->stop('immediate');
$primary->start;
bus_ready($primary);
is(read_one(), '1', 'after a crash it goes on');

done_testing();
