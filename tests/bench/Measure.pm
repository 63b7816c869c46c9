# tests/bench/Measure.pm
#
# Measurements and what is reported of them: one JSON object a line on
# standard output, and the same for people on standard error.

package Measure;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use JSON::PP;

use lib dirname(abs_path(__FILE__));
use Server;

our @EXPORT = qw(alternate calls_rate measure median middle report report_alone short
  values_of $pairs $seconds);

our $pairs = $ENV{BENCH_PAIRS} || 7;
our $seconds = $ENV{BENCH_SECONDS} || 10;

# calls_rate returns how many times a second one client runs a prepared script
# of pgbench.
sub calls_rate
{
	my ($name, $text, @options) = @_;
	my $script = work_directory() . "/$name.sql";
	my $tps;

	write_file($script, "$text\n");
	open(
		my $pgbench, '-|', pg_config('--bindir') . '/pgbench',
		'-n', '-c', 1, '-M', 'prepared', '-T', $seconds, @options,
		'-f', $script) || die "could not run pgbench: $!\n";
	while (my $line = <$pgbench>)
	{
		$tps = $1 if $line =~ /^tps = ([0-9.]+)/;
	}
	close($pgbench) || die "tests/bench/run: pgbench failed: $name\n";
	die "tests/bench/run: pgbench has told no rate\n" if !$tps;
	return $tps;
}

# measure runs a client and returns its figures.
sub measure
{
	my ($name, @options) = @_;
	my $program = program($name);
	my ($line, %figures);

	open(my $client, '-|', $program, @options)
	  || die "could not run $program: $!\n";
	$line = <$client>;
	close($client) || die "tests/bench/run: failed: $program @options\n";
	%figures = split ' ', $line;
	return \%figures;
}

# alternate runs rounds of several measurements, each next round in the
# other order, and returns their results by name.  Each measurement begins
# with what "reset" does and a checkpoint, with neither if that is undefined,
# and is told how long it shall take.
# A short round that does not count comes first.
sub alternate
{
	my ($reset, @measurements) = @_;
	my %results;

	foreach my $round (0 .. $pairs)
	{
		my @turn = $round % 2 ? @measurements : reverse @measurements;

		foreach my $measurement (@turn)
		{
			my ($name, $function) = @$measurement;
			my $result;

			if ($reset)
			{
				$reset->();
				sql('CHECKPOINT');
			}
			$result = $function->($round == 0 ? 1 : $seconds);
			next if $round == 0;
			push @{ $results{$name} }, $result;
			say_line('  %d %-14s %s', $round, $name, $result->{text});
		}
	}
	return \%results;
}

sub sorted
{
	return sort { $a <=> $b } @_;
}

sub median
{
	my @values = sorted(@_);
	my $n = @values;

	return $n % 2 ? $values[ $n / 2 ] :
	  ($values[ $n / 2 - 1 ] + $values[ $n / 2 ]) / 2;
}

# middle returns the median of one figure of each result.
sub middle
{
	my ($results, $figure) = @_;

	return short(median(values_of($results, $figure)));
}

# values_of returns one figure of each result.
sub values_of
{
	my ($results, $figure) = @_;

	return map { $_->{$figure} } @$results;
}

# report prints the comparison of ours with base by one figure.
sub report
{
	my (%arg) = @_;
	my $figure = $arg{figure};
	my @ours = values_of($arg{ours}, $figure);
	my @base = values_of($arg{base}, $figure);
	my @ratio = map { $ours[$_] / $base[$_] } 0 .. $#ours;
	my %line = (
		bench => $arg{bench},
		unit => $arg{unit},
		pairs => scalar @ratio,
		seconds => $seconds + 0,
		%{ $arg{more} // {} });
	my %series = (ratio => \@ratio, ours => \@ours, base => \@base);

	foreach my $name (keys %series)
	{
		my @values = sorted(@{ $series{$name} });

		$line{$name} = short(median(@values));
		$line{"${name}_min"} = short($values[0]);
		$line{"${name}_max"} = short($values[-1]);
	}
	if (defined $arg{target})
	{
		$line{target} = $arg{target};
		$line{better} = $arg{better};
		$line{met} = met(median(@ratio), $arg{target}, $arg{better});
	}
	print JSON::PP->new->canonical->encode(\%line), "\n";
	say_line(
		'%s: ratio %s (%s to %s)%s; ours %s (%s to %s), base %s (%s to %s) %s',
		$arg{bench},
		@line{qw(ratio ratio_min ratio_max)},
		defined $arg{target} ?
		  sprintf(', target %s or %s: %s',
			$arg{target},
			$arg{better} eq 'higher' ? 'more' : 'less',
			$line{met} ? 'met' : 'missed') :
		  '',
		@line{qw(ours ours_min ours_max base base_min base_max)},
		$arg{unit});
}

# report_alone prints one figure of ours that has no base, or the ratio of
# two of its figures.
sub report_alone
{
	my (%arg) = @_;
	my %line = (
		bench => $arg{bench},
		unit => $arg{unit},
		$arg{name} => short($arg{value}),
		target => $arg{target},
		better => $arg{better},
		%{ $arg{more} // {} });

	$line{met} = met($arg{value}, $arg{target}, $arg{better});
	print JSON::PP->new->canonical->encode(\%line), "\n";
	say_line(
		'%s: %s %s %s, target %s or %s: %s',
		$arg{bench}, $arg{name}, $line{ $arg{name} },
		$arg{unit} eq 'ratio' ? '' : $arg{unit},
		$arg{target}, $arg{better} eq 'higher' ? 'more' : 'less',
		$line{met} ? 'met' : 'missed');
}

sub met
{
	my ($value, $target, $better) = @_;

	return JSON::PP::true
	  if $better eq 'higher' ? $value >= $target : $value <= $target;
	return JSON::PP::false;
}

# short rounds a number to four digits that count; it stays a number.
sub short
{
	my ($value) = @_;

	return sprintf('%.0f', $value) + 0 if abs($value) >= 1000;
	return sprintf('%.4g', $value) + 0;
}

1;
