# tests/t/015_private.t
#
# The PostgreSQL that the tests run with is a private one, and making one
# leaves the PostgreSQL that it is made of alone: so two trees can be tested
# side by side, each with its own extension.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = $ENV{MBUS_TREE};
my $work = $tree =~ s{/tree$}{}r;
my $pg_config = $ENV{PG_CONFIG};
my $before;

# pg_config returns what a pg_config says.
sub pg_config
{
	my ($program, $option) = @_;

	chomp(my $value = qx("$program" --$option));
	return $value;
}

# installed lists what lies where extensions are installed, with size, inode
# and time.
sub installed
{
	my @places =
	  map { pg_config($pg_config, $_) } qw(pkglibdir sharedir);
	my $list = qx(find @places -printf '%p %s %i %T@ %u\\n' | sort);

	return $list;
}

# private makes a private PostgreSQL and returns its pg_config.
sub private
{
	my ($name) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir() . "/$name";

	chomp(my $program = qx("$tree/tools/private" "$directory"));
	is($?, 0, "making $name");
	return $program;
}

# cluster makes and starts a cluster of a private PostgreSQL, whose extension
# calls itself by a name.
sub cluster
{
	my ($name, $program) = @_;
	my $control =
	  pg_config($program, 'sharedir') . '/extension/message_bus.control';
	my $node;

	system('sed', '-i', "s/^comment.*/comment = '$name'/", $control);
	local $ENV{PATH} = pg_config($program, 'bindir') . ":$ENV{PATH}";
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', bus_conf('postgres'));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION message_bus');
	bus_ready($node);
	return $node;
}

# loaded returns the files of the extension's library that a server has.
sub loaded
{
	my ($node) = @_;
	my ($postmaster) = split /\n/,
	  slurp_file($node->data_dir . '/postmaster.pid');
	my %files =
	  map { $_ => 1 } slurp_file("/proc/$postmaster/maps") =~
	  m{(/\S*message_bus\.so)}g;

	return join ' ', keys %files;
}

like(pg_config($pg_config, $_), qr{^\Q$work\E/}, "the tests' $_ is private")
  foreach qw(bindir pkglibdir sharedir);

$before = installed();
my %program = map { $_ => private($_) } qw(one two);
my %node = map { $_ => cluster($_, $program{$_}) } qw(one two);

foreach my $name (qw(one two))
{
	is($node{$name}->safe_psql('postgres', q{
			SELECT comment FROM pg_available_extensions
			WHERE name = 'message_bus'}),
		$name, "$name has its own extension");
	is(loaded($node{$name}),
		pg_config($program{$name}, 'pkglibdir') . '/message_bus.so',
		"$name has its own library");
	ok($node{$name}->safe_psql('postgres', q{
			SELECT message_bus.create_channel('c');
			SELECT message_bus.publish('c', '1')}),
		"$name publishes");
}
is(installed(), $before, 'what they were made of is as it was');
$_->stop foreach values %node;
done_testing();
