# tests/t/093_upload_disk.t
#
# A disk that is nearly full takes no uploads: who appends hears so, nothing is
# stored in part, and the space comes back when the upload is given up.
#
# The disk is a tmpfs in a mount namespace of this process.

use strict;
use warnings;

use MessageBus::Alone;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('upload_disk');
my $filler = $node->data_dir . '/filler';

mkdir $node->data_dir;
system('mount', '-t', 'tmpfs', '-o', 'size=240m,mode=700', 'none',
	$node->data_dir) == 0 || die "could not mount\n";
$node->init(extra => [ '--encoding=UTF8', '--no-locale', '--wal-segsize=1' ]);
$node->append_conf('postgresql.conf', bus_conf('postgres')
	  . "log_statement = none\n"
	  . "shared_buffers = 16MB\n"
	  . "autovacuum = off\n"
	  . "message_bus.log = off\n"
	  . "min_wal_size = 32MB\n"
	  . "max_wal_size = 48MB\n"
	  . "message_bus.disk_reserve = '4MB'\n"
	  . "message_bus.own_body_min = '1MB'\n"
	  . "message_bus.worker_interval = 100ms\n");
$node->start;
create_bus($node);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# free returns how many bytes of the disk are free.
sub free
{
	my ($line) = (split /\n/, `df -B1 --output=avail '@{[ $node->data_dir ]}'`)[-1];

	return $line + 0;
}

# fill leaves so many bytes free.
sub fill
{
	my ($left) = @_;

	system('head -c ' . (free() - $left) . " /dev/zero >'$filler'") == 0
	  || die "could not fill the disk\n";
}

sql(q{
	SELECT message_bus.create_channel('up');
	CREATE TABLE part AS SELECT string_agg(sha256(convert_to(i::text, 'UTF8')), ''::bytea) AS bytes FROM generate_series(1, 8192) AS i;
});
my $upload = sql(q{SELECT message_bus.upload_begin('up', size => 80 * 262144 + 1)});
sql_fails($node, 'postgres', q{SELECT message_bus.upload_begin('up', size => 240 * 1024 * 1024)},
	'53100', qr/there is no room for an upload of 251658240 bytes/, 'more than there is room for');
sql("SELECT message_bus.upload_append($upload, n * 262144, bytes) FROM part, generate_series(0, 59) AS n");

# a twentieth of 240 MB is kept
fill(11 * 1024 * 1024);
sql_fails($node, 'postgres', "SELECT message_bus.upload_append($upload, 60 * 262144, bytes) FROM part",
	'53100', qr/less than 5 percent of the disk would be free/, 'an append where little is free');
sql_fails($node, 'postgres', q{SELECT message_bus.upload_begin('up', size => 1)},
	'53100', qr/less than 5 percent/, 'and a begin');
is(sql("SELECT state, received, complete_to FROM message_bus.upload_status($upload)"),
	'open|' . 60 * 262144 . '|' . 60 * 262144,
	'what was there is there');
is(sql(q{SELECT count(*) FROM message_bus.messages WHERE channel = 'up'}), '0', 'and no message');

# all of it
sql("SELECT message_bus.publish_text('up', 'x', 'text/plain')");
my $before = free();
is(sql("SELECT message_bus.upload_abort($upload)"), 't', 'it is given up');
ok( wait_for('the space to come back', sub {
			return free() > $before + 14 * 1024 * 1024;
		}),
	'its space comes back');
is(sql(q{SELECT message_bus.upload_begin('up', size => 2 * 1024 * 1024) > 0}), 't', 'and is for others');

$node->stop;
done_testing();
