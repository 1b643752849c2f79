"""Sizes: from shapes and resources alone; the same as ever, since a resumed run and its bits rest on them."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskumap.planning import memory
from daskumap.planning.sizes import Resources, make_sizes

GB = 10**9


def sizes(rows, columns, memory=4 * GB, workers=1, threads=2, **options):
    return make_sizes(rows, columns, 15, 2, Resources(memory, workers, threads), **options)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # Brute force: about 1,024 rows a cell, more of them as the square root grows; one cell for few rows.
        ({"rows": 1_000, "columns": 10}, {"cells": 1, "sample_rows": 1_000}),
        ({"rows": 4_095, "columns": 784}, {"cells": 1}),  # exact, as umap-learn is below 4,096 rows
        ({"rows": 4_096, "columns": 784}, {"cells": 6}),
        ({"rows": 4_095, "columns": 8, "max_cell_rows": 1_024}, {"cells": 16}),
        ({"rows": 100_000, "columns": 64}, {"cells": 98, "sample_rows": 8_192}),
        ({"rows": 10**8, "columns": 128}, {"cells": 20_000, "sample_rows": 480_000}),
        # NN-descent: few and large ones.
        ({"rows": 9_000, "columns": 10, "matrix_product": False}, {"cells": 1, "probe_rows": 128}),
        ({"rows": 10**6, "columns": 64, "matrix_product": False}, {"cells": 16, "max_cell_rows": 750_000}),
        # What the user asks for.
        ({"rows": 100_000, "columns": 64, "max_cell_rows": 2_000}, {"cells": 200, "max_cell_rows": 2_000}),
        ({"rows": 1_500, "columns": 10, "max_cell_rows": 500}, {"cells": 12}),
        ({"rows": 9_000, "columns": 10, "matrix_product": False, "max_cell_rows": 1_000}, {"cells": 36}),
        # Row blocks are whole chunks, one large chunk is read once, and each slot has two blocks.
        ({"rows": 100_000, "columns": 64, "source_block_rows": 7_000}, {"row_block": 21_000}),
        ({"rows": 100_000, "columns": 64, "source_block_rows": 60_000}, {"row_block": 60_000}),
        ({"rows": 100_000, "columns": 64, "workers": 4}, {"row_block": 6_250}),
        # A window of rows and the edges in memory follow the budget.
        ({"rows": 10**6, "columns": 1_000, "memory": GB}, {"window_rows": 8_812}),
        ({"rows": 10**6, "columns": 64, "partitions": 1}, {"layout_partitions": 1}),
        ({"rows": 10**6, "columns": 64, "partitions": 7}, {"layout_partitions": 7}),
        # The layout is shared where that is faster: not for few rows, and not by all of many workers.
        ({"rows": 10**5, "columns": 64, "workers": 2}, {"layout_partitions": 1}),
        ({"rows": 10**6, "columns": 64, "workers": 2}, {"layout_partitions": 2}),
        (
            {"rows": 10**8, "columns": 64, "workers": 512, "threads": 8, "memory": 64 * GB},
            {"layout_partitions": 23},
        ),
        # More of them where fewer could not keep the edges, 25 GB, in 640 MB each.
        (
            {"rows": 10**8, "columns": 64, "workers": 64, "threads": 8, "memory": 5_500_000_000},
            {"layout_partitions": 40},
        ),
    ],
)
def test_sizes(case, expected):
    got = sizes(**case)
    assert {name: getattr(got, name) for name in expected} == expected


# What the result depends on: from the data and the parameters alone.
FIXED = ("rows", "columns", "sample_rows", "probe_rows", "cells", "max_cell_rows", "vertex_chunk")


@given(
    st.integers(20, 10**8),
    st.integers(1, 4_000),
    st.integers(memory.RESERVED, 64 * GB),
    st.integers(1, 32),
    st.integers(1, 16),
    st.integers(1, 10**6),
    st.booleans(),
    st.none() | st.integers(1, 20),
)
@settings(max_examples=300, deadline=None)
def test_sizes_of_any_shape(rows, columns, allowed, workers, threads, chunk, product, partitions):
    options = {"matrix_product": product}
    one = make_sizes(
        rows,
        columns,
        15,
        2,
        Resources(allowed, workers, threads),
        source_block_rows=chunk,
        partitions=partitions,
        **options,
    )
    other = make_sizes(rows, columns, 15, 2, Resources(64 * GB), **options)
    assert [getattr(one, name) for name in FIXED] == [getattr(other, name) for name in FIXED]
    assert 1 <= one.row_block <= rows
    assert one.probe_rows <= one.sample_rows <= rows
    # A task owns whole chunks of vertices: two that share one would lose data. A layout partition is one.
    assert one.partition_rows % one.vertex_chunk == 0
    for count, part in (
        (one.row_blocks, one.block),
        (one.partitions, one.partition),
        (one.layout_partitions, one.layout_partition),
    ):
        assert count <= 2 * 10**5
        if count < 200:
            ranges = [part(number) for number in range(count)]
            assert ranges[0][0] == 0
            assert ranges[-1][1] == rows
            assert all(a[1] == b[0] and b[0] < b[1] for a, b in itertools.pairwise(ranges))


# Two lines a case: rows, columns, n_neighbors, n_components, MB of memory, workers, threads, whether a matrix
# product gives the distances, rows and bytes an item of the source's blocks, max_cell_rows, partitions; then
# the fields of Sizes from `sample_rows` on, in their order. The numbers are those of version 0.1 before its
# arithmetic was cut into functions, and of 20,000 other shapes none differed then.
KNOWN = """
1400000 390 100 10 73000 1 8 1 1 4 - -
  47736 512 1989 8448 30788 65536 15384 30769 87500 746051 65536 1400000 67179987200 2184000000
100000 7 15 1 10000 1 2 1 81 8 - 20
  8192 390 98 12288 100000 4096 24948 1714285 25000 7481562 24576 5000 9533912320 2800000
30000000 3 15 2 980 1 1 1 1 4 - -
  262968 512 10957 32856 200000 65536 555555 833333 37037 11363 65536 30000007 0 0
510000000 77 30 10 1400 2 8 1 1 4 - -
  1084056 512 45169 135492 118147 65536 8658 12987 7407 64 65536 255000008 0 0
9700 720 15 1 11000 16 1 1 1000 4 - -
  8192 256 14 8448 9700 1024 1000 16666 304 8265564 1024 9700 10578945840 0
110000 4 15 1 76000 16 8 1 1 8 500 20
  21120 429 880 500 500 4096 1024 3000000 430 683404 4096 5500 75550274880 0
36 1 10 3 78000 2 1 1 1000 4 500 -
  36 36 1 500 36 1024 36 12000000 9 606093743 1024 36 77579424400 0
150000000 7 15 1 11000 16 4 1 1 4 - 1
  587952 512 24498 73476 200000 65536 857142 1714285 711111 104092 65536 150000048 7359799040 0
1200000 1600 15 2 66000 1 4 1 330 1 2000 -
  57600 512 2400 2000 2000 65536 5940 7500 150000 556888 65536 1200000 57631799040 7680000000
8100000 12 15 2 22000 1 8 1 1 4 - 3
  136632 512 5693 17076 200000 65536 500000 1000000 506250 1209880 65536 2700000 20426798080 388800000
46000 1 30 1 34000 16 2 1 1 8 - -
  8192 256 45 12288 46000 2048 1024 12000000 719 2914898 2048 46000 33572198720 0
57000 3 100 2 2300 512 2 0 1000 4 - -
  8192 128 12 60000 49761 2048 1000 4000000 28 128775 2048 57000 1854782400 0
4800 25 10 1 3600 1 8 0 1000 4 500 20
  4800 128 39 500 500 1024 1000 480000 300 620992 1024 240 3174836480 480000
400000 57 5 2 19000 1 4 1 1 8 - 20
  9384 512 391 12288 200000 16384 50000 210526 50000 4512304 49152 20000 18417749760 91200000
710000000 320 15 10 1200 1 8 1 710000000 4 - -
  1279104 512 53296 159864 75528 65536 2083 3125 14814 64 65536 710000244 0 0
42000000 180 100 2 3100 16 8 1 160000 8 - -
  311112 512 12963 38880 38819 65536 19367 43576 17430 904 65536 2625000 0 0
240000 71 10 2 42000 512 4 1 240000 8 - 1
  8192 512 235 12288 200000 8192 1024 169014 59 345546 8192 240000 41552049920 0
22000000 100 30 2 2400 4 1 1 7000 4 - 20
  225168 512 9382 28140 108695 65536 56000 120000 355555 32363 65536 1100000 989899520 0
4400000 160 5 2 89000 1 1 0 1 8 - 1
  8192 128 18 3000000 163398 65536 25000 75000 2133333 3803870 196608 4400000 85532949760 2816000000
58 42 15 10 12000 2 2 1 1 8 - 20
  58 58 1 12288 58 1024 58 285714 8 45234356 1024 3 11578268080 0
37000 2 100 3 3600 1 4 1 1 4 - 20
  8192 256 37 12288 37000 2048 4625 6000000 4625 776078 4096 1850 3085733600 296000
290 27 15 10 8600 512 2 1 1000 4 - 1
  290 256 1 12288 290 1024 290 444444 1 31953034 1024 290 8178221680 0
150 740 30 1 3700 16 2 1 7000 8 - -
  150 150 1 8448 150 1024 150 16216 3 12812495 1024 150 3276556360 0
660000000 53 15 10 3700 1 4 1 1 8 - -
  1233168 512 51382 154140 200000 65536 8385 18867 14814 64 65536 660000600 0 0
380000000 11 15 2 6200 1 8 1 1 8 - -
  935784 512 38991 116952 200000 65536 40404 90909 14814 64 65536 380000016 0 0
310000 9 15 1 1800 4 2 1 1000 8 500 3
  59520 512 2480 500 500 16384 19000 1333333 19375 316525 16384 103334 1346274880 0
94000000 1200 5 1 28000 4 4 1 1 1 - -
  465456 512 19394 58164 25380 65536 8000 10000 2133333 4459 196608 23500020 25479799040 0
16000 400 15 2 600 4 8 1 16000 4 - -
  8192 256 23 8448 16000 1024 1024 2500 250 15625 1024 16000 172478720 0
21000000 31 15 10 21000 512 8 1 21000000 4 - -
  220008 512 9167 27492 200000 65536 2564 387096 2564 2253 65536 875000 15939598080 0
53000000 1 100 1 19000 64 4 1 1 4 - -
  349464 512 14561 43680 49920 65536 103516 12000000 103516 69259 65536 1325000 16051993600 0
5100000 1200 15 3 1100 1 1 1 1 1 2000 -
  244800 512 10200 2000 2000 65536 8000 10000 258148 6827 65536 5100000 318949760 0
9900 31 5 2 20000 1 1 0 9900 1 2000 -
  8192 128 20 2000 2000 1024 9900 387096 4950 152957921 4096 9900 19577229520 1227600
900000000 290 15 2 1300 1 8 0 1 1 500 -
  172800000 128 7200000 500 500 65536 3678 3448 14814 64 65536 900000070 0 0
2800000 400 15 1 10000 1 8 0 1000 1 - 3
  8192 128 16 2100000 63291 65536 24000 30000 175000 79774 65536 933334 9083598080 0
1000000 51 30 2 63000 1 4 1 7000 4 500 1
  192000 512 8000 500 500 32768 112000 235294 125000 13532986 32768 1000000 62115799040 204000000
1400000 8 15 2 1900 4 2 0 1000 8 - -
  8192 128 16 1050000 200000 65536 87000 1500000 87500 334926 65536 350000 1313899520 0
7000000 190 5 3 17000 1 1 1 1000 8 - -
  127104 512 5296 15864 141242 65536 21000 63157 2133333 383888 196608 7000000 16104949760 0
200 72 15 10 3800 1 8 1 1 1 2000 -
  200 200 1 2000 200 1024 200 166666 13 3300709 1024 200 3373021120 57600
45000000 3 15 2 3200 2 4 1 1 8 - -
  322008 512 13417 40248 200000 65536 1333333 4000000 238425 118336 65536 22500016 759799040 0
8300000 17 15 10 4900 16 1 1 8300000 4 - -
  138336 512 5764 17280 200000 65536 259375 705882 259375 931640 65536 518750 2764949760 0
160 1 10 2 610 512 4 1 7000 8 - -
  160 160 1 12288 160 1024 160 1484355 1 371088 1024 160 187699840 0
92000 4 30 2 730 64 8 1 1 4 100000 -
  8192 359 90 100000 92000 4096 1024 301296 90 3347 4096 92000 251269760 0
3400000 1 5 2 67000 16 4 0 3400000 8 - 20
  8192 128 16 2550000 200000 65536 3400000 12000000 26563 129932812 65536 170000 66370599680 0
380000000 2 30 2 2300 2 2 1 7000 4 2000 -
  18240000 512 760000 2000 2000 65536 329000 500000 7407 216 65536 190000174 0 0
1300000 1500 30 2 18000 1 8 1 1300000 8 - 20
  44328 512 1847 8448 18518 65536 2666 8000 81250 35138 65536 65000 16647196160 0
2000 220 5 10 12000 4 1 1 2000 8 - -
  2000 256 1 12288 2000 1024 2000 54545 250 90467500 1024 2000 11579313280 0
56 840 100 3 9900 1 1 1 1 8 - 3
  56 56 1 8448 56 1024 56 14285 28 74061019 1024 19 9474074080 188160
2100 1 15 1 640 64 8 1 1 4 - 3
  2100 256 1 12288 2100 1024 1024 1000000 3 83333 1024 700 213076720 0
200000 25 15 2 780 16 1 1 1 1 100000 3
  8192 512 196 100000 100000 8192 6250 446000 6250 87109 8192 66667 345118720 0
1200 1 15 2 6500 64 2 1 1 8 100000 -
  1200 256 1 100000 1200 1024 1024 12000000 5 11874962 1024 1200 6078231680 0
450000 3 15 1 31000 4 8 1 1 8 - 3
  10560 512 440 12288 200000 16384 7032 4000000 7032 466558 16384 150000 30460899520 0
130 31 15 10 1800 1 8 1 1 4 - -
  130 130 1 12288 130 1024 130 173887 9 1347630 1024 130 1373076600 16120
100 490 15 3 500 4 2 1 1600 1 2000 -
  100 100 1 2000 100 1024 100 2550 7 312490 1024 100 78273680 0
5700000 8 100 2 9800 16 1 1 1000 4 - -
  114672 512 4778 14316 49368 65536 178000 1500000 106666 2199053 65536 356250 8784998400 0
94 470 15 1 570 1 2 0 1 1 - 1
  94 94 1 60000 94 1024 94 4980 24 585244 1024 94 148101080 176720
52000 18 15 2 530 1 1 1 52000 4 - 20
  8192 256 51 12288 52000 2048 52000 189527 26000 852875 22528 2600 88996480 0
340000000 600 5 2 2600 2 8 1 1 4 500 -
  65280000 512 2720000 500 500 65536 1111 1666 44444 64 65536 170000035 0 0
590000000 120 5 2 37000 64 1 1 7000 4 - 3
  1166016 512 48584 145728 200000 65536 49000 100000 2133333 17609 196608 196666800 12924949760 0
120000000 23 10 2 2100 2 4 1 600 4 - -
  525840 512 21910 65724 200000 65536 28800 43478 22222 64 65536 60000014 0 0
36000000 700 30 1 13000 64 4 1 1000 8 - -
  288000 512 12000 36000 35211 65536 5000 17142 70313 3334 65536 1714286 11419598080 0
"""


def known_sizes():
    lines = KNOWN.split("\n")[1:-1]
    return [pytest.param(*map(str.split, pair), id=pair[0]) for pair in zip(*[iter(lines)] * 2, strict=True)]


@pytest.mark.parametrize(("case", "expected"), known_sizes())
def test_sizes_are_what_they_were(case, expected):
    """Sizes of the first group decide bits; a change of the others should be meant."""
    rows, columns, k, d, megabytes, workers, threads, product, block, item, cell, partitions = (
        None if value == "-" else int(value) for value in case
    )
    made = make_sizes(
        rows,
        columns,
        k,
        d,
        Resources(megabytes * 10**6, workers, threads),
        matrix_product=bool(product),
        source_block_rows=block,
        source_item_bytes=item,
        max_cell_rows=cell,
        partitions=partitions,
    )
    assert dataclasses.astuple(made) == (rows, columns, *map(int, expected))
