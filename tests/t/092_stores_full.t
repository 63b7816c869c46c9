# tests/t/092_stores_full.t
#
# A disk that is full while large bodies are written: an error, no message, and
# what has expired goes by itself, with the reserve that is kept for it.
#
# The disk is a tmpfs in a mount namespace of this process.

use strict;
use warnings;

use MessageBus::Alone;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('full');

mkdir $node->data_dir;
system('mount', '-t', 'tmpfs', '-o', 'size=200m,mode=700', 'none',
	$node->data_dir) == 0 || die "could not mount\n";
$node->init(extra => [ '--encoding=UTF8', '--no-locale', '--wal-segsize=1' ]);
# WAL has its files before the disk is full: without, no server works
$node->append_conf('postgresql.conf', bus_conf('postgres')
	  . "log_statement = none\n"
	  . "shared_buffers = 16MB\n"
	  . "max_connections = 20\n"
	  . "autovacuum = off\n"
	  . "message_bus.log = off\n"
	  . "min_wal_size = 32MB\n"
	  . "max_wal_size = 48MB\n"
	  . "message_bus.disk_reserve = '16MB'\n"
	  . "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.own_body_min = 4MB\n"
	  . "message_bus.store_max_size = 8MB\n");
$node->start;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# publish publishes so many bytes; returns the SQLSTATE, or ''.
sub publish
{
	my ($channel, $bytes) = @_;
	my ($status, $out, $err) = $node->psql(
		'postgres',
		qq{SELECT message_bus.publish_bytes('$channel',
			decode(repeat('00', $bytes), 'hex'), 'application/octet-stream')},
		on_error_stop => 1,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return '' if $status == 0;
	return $err =~ /ERROR:  (\w{5}): / ? $1 : $err;
}

# stored returns how many messages of a channel there are.
sub stored
{
	return sql("SELECT count(*) FROM message_bus.messages WHERE channel = '$_[0]'");
}

create_bus($node);
sql(q{
	SELECT message_bus.create_channel('short', ttl => '12 seconds', compression => 'none');
	SELECT message_bus.create_channel('long', compression => 'none')});
is(publish('short', 3_000_000), '', 'bodies in a shared store') for 1 .. 3;
is(publish('short', 5_000_000), '', 'bodies in stores of their own') for 1 .. 4;
sql('CHECKPOINT') for 1 .. 2;

# ----------
# Full
# ----------

my $sent = 0;
my $code;

# what is written and not committed takes the space as well
$sent++ while ($code = publish('long', 6_000_000)) eq '';
is($code, '53100', 'a large body that finds no space');
wait_for('the bus to say so',
	sub { publish('long', 6_000_000) eq '53100'
		  && sql('SELECT count(disk_full_since) FROM message_bus.worker_status') == 1 });
is(stored('long'), $sent, 'leaves no message');
wait_for(
	'what has expired to be dropped',
	sub {
		sql(q{SELECT count(*) FROM message_bus.body_store s WHERE NOT own}) == 0
	});
wait_for('what was rolled back to be dropped, but for four that are ready',
	sub {
		sql(q{SELECT count(*) FROM message_bus.body_store s WHERE own
			AND NOT EXISTS (SELECT FROM message_bus.body_hold h
				WHERE h.store_no = s.store_no AND until > now())}) <= 4
	});
wait_for('the bus to go on', sub { publish('long', 6_000_000) eq '' });
is(stored('long'), $sent + 1, 'then bodies are taken again');
is( sql(q{SELECT bool_and(length(message_bus.get_bytes(id)) = 6000000)
		FROM message_bus.messages WHERE channel = 'long'}),
	't', 'and all of them are whole');

$node->stop('immediate');
done_testing();
