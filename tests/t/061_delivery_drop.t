# tests/t/061_delivery_drop.t
#
# What deliveries leave in shared memory does not hinder DROP DATABASE and
# DROP EXTENSION, and does not come back.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = bus_node('delivery_drop',
	databases => [ 'postgres', 'doomed' ],
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.max_leases = 16\n"
	  . "message_bus.database_share = 100\n"
	  . "message_bus.subscription_share = 100\n"
	  . "message_bus.max_subscriptions = 16\n");
my $setup = q{
	SELECT message_bus.create_channel('c');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.publish('c', to_json(i)) FROM generate_series(1, 20) i};
my $claim = q{
	SELECT count(*) FROM message_bus.claim('c', 's', 12,
		lease_for => '1 hour')};

create_bus($node);
$node->safe_psql('postgres', $setup);

# DROP DATABASE with leases, and with one who waits; again and again, since
# what is left behind would fill the pool
foreach my $round (1 .. 3)
{
	my $waiter;
	my $start;

	$node->safe_psql('postgres', 'CREATE DATABASE doomed');
	create_bus($node, 'doomed');
	$node->safe_psql('doomed', $setup);
	is($node->safe_psql('doomed', $claim), 12, "round $round: twelve claimed");
	$waiter = $node->background_psql('doomed');
	$waiter->query_until(qr/started/,
		"\\echo started\nSELECT message_bus.create_channel('idle'); "
		  . "SELECT message_bus.claim('idle', wait => '10 minutes');\n");
	ok( $node->poll_query_until(
			'postgres',
			q{SELECT count(*) = 1 FROM pg_stat_activity
			  WHERE datname = 'doomed' AND query LIKE '%10 minutes%'
				AND wait_event_type = 'Extension'}),
		"round $round: one waits");
	$start = time;
	$node->safe_psql('postgres', 'DROP DATABASE doomed WITH (FORCE)');
	cmp_ok(time - $start, '<', 5, "round $round: DROP DATABASE is quick");
	eval { $waiter->quit };
}

# the launcher looks each second whether a database has gone
ok( $node->poll_query_until('postgres',
		"\\set QUIET on\nBEGIN; $claim; ROLLBACK;", '12'),
	'leases of a dropped database leave the pool');

# the same with the extension; an open transaction has claimed
foreach my $round (1 .. 3)
{
	is( $node->safe_psql('postgres', $claim),
		12, "round $round: twelve are claimed");
	my $lease = lease_of($node, 'c');

	$node->safe_psql('postgres', 'DROP EXTENSION message_bus CASCADE');
	create_bus($node);
	is( $node->safe_psql('postgres',
			'SELECT count(*) FROM message_bus.leases'),
		0,
		"round $round: nothing is out in the new one");
	refused($node, $lease, "round $round: a lease of before");
	$node->safe_psql('postgres', $setup);
}

# DROP EXTENSION that is rolled back
is($node->safe_psql('postgres', $claim), 12, 'twelve are claimed');
$node->safe_psql('postgres',
	'BEGIN; DROP EXTENSION message_bus CASCADE; ROLLBACK');
is( $node->safe_psql(
		'postgres',
		'SELECT message_bus.ack(max(lease)) FROM message_bus.leases'),
	12,
	'after a DROP EXTENSION that is rolled back they can be acked');

# channels and subscriptions with leases
foreach my $drop (
	q{SELECT message_bus.drop_subscription('c', 's')},
	q{SELECT message_bus.drop_channel('c')})
{
	my ($what) = $drop =~ /drop_(\w+)/;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$node->safe_psql('postgres', $what eq 'channel'
		? q{SELECT message_bus.create_subscription('c', 's')}
		: q{SELECT message_bus.publish('c', to_json(i))
			FROM generate_series(1, 20) i});
	$node->safe_psql('postgres', $claim);
	my $lease = lease_of($node, 'c');

	$session->query_safe("BEGIN; SELECT message_bus.ack($lease, ARRAY["
		  . '(SELECT min(message_id) FROM message_bus.leases)])');
	$node->safe_psql('postgres', $drop);
	my ($out, $bad) = $session->query('COMMIT');
	ok($bad, "drop_$what: an ack that was open is refused at commit");
	refused($node, $lease, "drop_$what: the lease is gone");
	eval { $session->quit };
}

# a channel that is dropped and made anew while others claim from it by name,
# and hear of other changes too
my $crashed = -s $node->logfile;
my @loops = (
	(
		q{PERFORM message_bus.claim('fleeting'),
			message_bus.claim('fleeting', lease_for => '1 second')}) x 3,
	q{PERFORM message_bus.drop_channel('fleeting', if_exists => true);
	  PERFORM message_bus.create_channel('fleeting')},
	q{PERFORM message_bus.alter_channel('idle', max_attempts => 7)});
my @sessions;

$node->safe_psql('postgres',
	q{SELECT message_bus.create_channel('idle', if_not_exists => true)});
foreach my $loop (@loops)
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/started/,
		"\\echo started\nDO \$\$ DECLARE until timestamptz := "
		  . "clock_timestamp() + interval '4 seconds'; BEGIN "
		  . "WHILE clock_timestamp() < until LOOP BEGIN $loop; "
		  . "EXCEPTION WHEN OTHERS THEN NULL; END; COMMIT; END LOOP; "
		  . "END \$\$;\n");
	push @sessions, $session;
}
is( scalar(
		grep {
			my $session = $_;
			eval { ($session->query('SELECT 7'))[0] eq '7' }
		} @sessions),
	scalar @loops,
	'claims from a channel that comes and goes end well');
bus_ready($node);
unlike(slurp_file($node->logfile, $crashed),
	qr/was terminated by signal/, 'no process has crashed');
eval { $_->quit } foreach @sessions;
$node->safe_psql('postgres',
	q{SELECT message_bus.drop_channel('fleeting', if_exists => true)});

$node->safe_psql('postgres', $setup);
is($node->safe_psql('postgres', $claim), 12, 'all of the pool is free again');

$node->stop;
done_testing();
