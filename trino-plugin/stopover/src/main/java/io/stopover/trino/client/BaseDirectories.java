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
package io.stopover.trino.client;

import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SequencedMap;
import java.util.Set;
import java.util.stream.Stream;

import static com.google.common.collect.ImmutableList.toImmutableList;
import static com.google.common.collect.ImmutableSet.toImmutableSet;

/**
 * Which daemons lack a base directory that others of the fleet use: what is stored there cannot be
 * read through them. Pure. Base directories are compared by their identity: their names and URIs
 * may differ between daemons, and one name may mean two places. One that a daemon has not
 * identified yet is neither lacked nor had.
 */
final class BaseDirectories
{
    /**
     * @param daemon the daemon that lacks the base directory
     * @param user a daemon that has it; empty if only the list of members names it
     * @param namesake the base directory which the daemon has by that name instead
     */
    record Lack(
            Daemon daemon,
            String name,
            String id,
            Optional<Daemon> user,
            Optional<BaseDirectory> namesake)
    {
        String describe()
        {
            return """
                    Stopover daemon %s lacks base directory %s (%s), which %s: what is stored \
                    there cannot be read through it, so the other daemons are asked first. \
                    %sConfigure it as there, or run `stopover members abandon %s` if it is lost \
                    for ever"""
                    .formatted(
                            daemon,
                            name,
                            id,
                            user.map(other -> other + " uses").orElse("the fleet uses"),
                            namesake.map("Its own base directory %s is elsewhere. "::formatted)
                                    .orElse(""),
                            name);
        }
    }

    private record Used(String name, String id, Optional<Daemon> user) {}

    private BaseDirectories() {}

    /** @param known the descriptions of the daemons, in order of preference */
    static List<Lack> lacks(SequencedMap<Daemon, DaemonInfo> known)
    {
        Map<String, Used> used = used(known);
        return known.entrySet().stream()
                .flatMap(entry -> used.values().stream()
                        .flatMap(one -> lack(entry.getKey(), entry.getValue(), one).stream()))
                .collect(toImmutableList());
    }

    private static Map<String, Used> used(SequencedMap<Daemon, DaemonInfo> known)
    {
        Map<String, Used> used = new LinkedHashMap<>();
        Set<String> abandoned = new HashSet<>();
        known.forEach((daemon, info) -> {
            for (BaseDirectory base : info.baseDirectories()) {
                base.id().ifPresent(id -> {
                    if (base.isInUse()) {
                        used.putIfAbsent(id, new Used(base.name(), id, Optional.of(daemon)));
                    }
                    if (base.isAbandoned()) {
                        abandoned.add(id);
                    }
                });
            }
        });
        for (DaemonInfo info : known.values()) {
            info.missing().forEach(
                    (id, name) -> used.putIfAbsent(id, new Used(name, id, Optional.empty())));
        }
        // a daemon that still lists it has not read the newest list yet
        used.keySet().removeAll(abandoned);
        return used;
    }

    private static Optional<Lack> lack(Daemon daemon, DaemonInfo info, Used used)
    {
        if (ids(info).anyMatch(used.id()::equals)) {
            return Optional.empty();
        }
        Optional<BaseDirectory> namesake = info.baseDirectories().stream()
                .filter(base -> base.name().equals(used.name()))
                .findFirst();
        if (namesake.isPresent() && namesake.get().id().isEmpty()) {
            return Optional.empty();
        }
        return Optional.of(new Lack(daemon, used.name(), used.id(), used.user(), namesake));
    }

    private static Stream<String> ids(DaemonInfo info)
    {
        return info.baseDirectories().stream().flatMap(base -> base.id().stream());
    }

    /** The daemons to use last; none if each lacks something. */
    static Set<Daemon> incomplete(SequencedMap<Daemon, DaemonInfo> known)
    {
        Set<Daemon> incomplete = lacks(known).stream()
                .map(Lack::daemon)
                .collect(toImmutableSet());
        return incomplete.containsAll(known.keySet()) ? Set.of() : incomplete;
    }
}
