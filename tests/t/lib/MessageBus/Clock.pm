# tests/t/lib/MessageBus/Clock.pm
#
# Clusters whose clock the test sets (tests/t/clock.c, which tests/run builds).

package MessageBus::Clock;

use strict;
use warnings;

use Exporter 'import';
use MessageBus::Test;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(clock_node clock_start clock_set clock_pass);

my $library = "$ENV{MBUS_TREE}/tests/bin/clock.so";
my $file = PostgreSQL::Test::Utils::tempdir() . '/clock';
my ($wall, $steady) = (0, 0);
my $slow = 1;

# clocks_write tells the servers what is to be added to their clocks.
sub clocks_write
{
	open my $out, '+<', $file or die "$file: $!\n";
	syswrite($out, pack('qq', $wall * 1_000_000, $steady * 1_000_000)) == 16
	  or die "$file: $!\n";
	close $out or die "$file: $!\n";
	return;
}

# under_clock calls a function that starts a server.
sub under_clock
{
	my ($function) = @_;

	local $ENV{LD_PRELOAD} = $library;
	local $ENV{MBUS_CLOCK} = $file;
	local $ENV{MBUS_CLOCK_SLOW} = $slow;
	return $function->();
}

# clock_node is bus_node, with a clock that can be set, and is that many times
# slower with the option slow.
sub clock_node
{
	my ($name, %option) = @_;

	$slow = $option{slow} || 1;
	open my $out, '>', $file or die "$file: $!\n";
	print $out pack('qq', 0, 0);
	close $out or die "$file: $!\n";
	return under_clock(sub { bus_node($name, %option) });
}

# clock_start starts such a cluster again.
sub clock_start
{
	my ($node) = @_;

	under_clock(sub { $node->start });
	return;
}

# clock_set sets the server's clock to so many seconds from what it was.
sub clock_set
{
	$wall = $steady + $_[0];
	clocks_write();
	return;
}

# clock_pass lets seconds pass.
sub clock_pass
{
	$wall += $_[0];
	$steady += $_[0];
	clocks_write();
	return;
}

1;
