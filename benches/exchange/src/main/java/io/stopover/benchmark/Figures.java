/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.benchmark;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.SequencedMap;

import static java.util.stream.Collectors.joining;

/**
 * Measurements of both contenders by round: medians with ranges, and the ratio of each round, which
 * compares two consecutive runs.
 */
final class Figures
{
    private final List<String> sides;
    /** By figure and contender: one value per round. */
    private final SequencedMap<String, SequencedMap<String, List<Double>>> values =
            new LinkedHashMap<>();

    Figures(List<String> sides)
    {
        this.sides = List.copyOf(sides);
    }

    void add(String side, SequencedMap<String, Double> round)
    {
        round.forEach((figure, value) -> values
                .computeIfAbsent(figure, _ -> new LinkedHashMap<>())
                .computeIfAbsent(side, _ -> new ArrayList<>())
                .add(value));
    }

    String table()
    {
        StringBuilder table = new StringBuilder(row("", sides, "ratio"));
        values.forEach((figure, bySide) -> table.append(row(
                figure,
                sides.stream().map(side -> spread(bySide.getOrDefault(side, List.of()))).toList(),
                sides.size() == 2 ? spread(ratios(bySide)) : "")));
        return table.toString();
    }

    private static String row(String figure, List<String> columns, String ratio)
    {
        return "%-28s%s%26s%n".formatted(
                figure, columns.stream().map("%30s"::formatted).collect(joining()), ratio);
    }

    /** Second contender divided by the first, skipping rounds in which the first is zero. */
    private List<Double> ratios(SequencedMap<String, List<Double>> bySide)
    {
        List<Double> base = bySide.getOrDefault(sides.get(0), List.of());
        List<Double> other = bySide.getOrDefault(sides.get(1), List.of());
        List<Double> ratios = new ArrayList<>();
        for (int round = 0; round < Math.min(base.size(), other.size()); round++) {
            if (base.get(round) > 0) {
                ratios.add(other.get(round) / base.get(round));
            }
        }
        return ratios;
    }

    private static String spread(List<Double> rounds)
    {
        if (rounds.isEmpty()) {
            return "-";
        }
        double[] sorted = rounds.stream().mapToDouble(Double::doubleValue).sorted().toArray();
        String median = number(percentile(sorted, 0.5));
        if (sorted.length == 1) {
            return median;
        }
        return "%s (%s-%s)".formatted(
                median, number(sorted[0]), number(sorted[sorted.length - 1]));
    }

    private static String number(double value)
    {
        double size = Math.abs(value);
        String format = size >= 100 || value == Math.rint(value) ? "%,.0f"
                : size >= 10 ? "%.1f" : size >= 0.1 ? "%.2f" : "%.4f";
        return String.format(Locale.ROOT, format, value);
    }

    /** Nearest-rank percentile of sorted values; {@code share} is between 0 and 1. */
    static double percentile(double[] sorted, double share)
    {
        int rank = (int) Math.ceil(share * sorted.length);
        return sorted[Math.clamp(rank - 1, 0, sorted.length - 1)];
    }

    /** Tab-separated values with a header line: one line per round and contender. */
    String raw(String workload)
    {
        StringBuilder raw = new StringBuilder("workload\tside\tround\t");
        raw.append(String.join("\t", values.keySet())).append("\n");
        int rounds = values.firstEntry().getValue().values().stream()
                .mapToInt(List::size).max().orElse(0);
        for (int round = 0; round < rounds; round++) {
            for (String side : sides) {
                int index = round;
                raw.append("%s\t%s\t%s\t".formatted(workload, side, round))
                        .append(values.values().stream()
                                .map(bySide -> value(bySide.get(side), index))
                                .collect(joining("\t")))
                        .append("\n");
            }
        }
        return raw.toString();
    }

    private static String value(List<Double> rounds, int round)
    {
        return rounds == null || round >= rounds.size() ? "" : String.valueOf(rounds.get(round));
    }

    static double[] sorted(List<Double> unsorted)
    {
        double[] sorted = unsorted.stream().mapToDouble(Double::doubleValue).toArray();
        Arrays.sort(sorted);
        return sorted;
    }
}
