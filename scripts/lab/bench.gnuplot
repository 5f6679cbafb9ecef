# SPDX-License-Identifier: GPL-2.0
# Called by scripts/lab/bench, which sets dir and many.
set title "Removal of a device with IPsec offload: wall time, median, minimum to maximum"
set xlabel sprintf("objects (0 at the left edge); those offloaded: among %d software SAs and %d policies", many, many)
set ylabel "milliseconds"
set logscale xy
set grid
set key outside below
# A file without a line is a case that was not measured.
has(f) = int(system(sprintf("wc -l <%s/plot-%s.dat", dir, f))) > 0
file(f) = has(f) ? sprintf("%s/plot-%s.dat", dir, f) : "/dev/null"
set xrange [80:*]
plot for [k in "unpatched patched"] file(k."-none") using 1:2:3:4 with yerrorlines \
		title k.": no offloaded objects, by software objects", \
	for [k in "unpatched patched"] file(k."-first") using 1:2:3:4 with yerrorlines \
		title k.": policies put in before the software ones", \
	for [k in "unpatched patched"] file(k."-last") using 1:2:3:4 with yerrorlines \
		title k.": SAs and policies put in after the software ones"
