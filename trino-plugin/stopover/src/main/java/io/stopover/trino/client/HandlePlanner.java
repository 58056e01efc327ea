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

import com.google.common.collect.ImmutableList;
import com.google.common.collect.ImmutableMap;
import com.google.common.collect.ImmutableSet;
import com.google.common.collect.Sets;
import com.google.inject.Inject;
import io.airlift.log.Logger;
import io.opentelemetry.context.Context;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;

import static com.google.common.collect.ImmutableSet.toImmutableSet;
import static java.util.Objects.requireNonNull;

/**
 * Plans source handles for the attempts that daemons have committed and still have in memory,
 * without a request to the base directories. The homes are queried first, each for the tasks of
 * which it is a home, then all daemons for what no home knows: so what is sent for an exchange of
 * small sinks does not grow with the number of daemons. The other attempts are left to an ordinary
 * plan; all of them, if the daemons do not answer.
 */
public final class HandlePlanner
{
    private static final Logger log = Logger.get(HandlePlanner.class);
    /**
     * Handles of a further daemon are used only if they cover this much on average: each is a
     * request of a reader, and an ordinary plan joins what many daemons have.
     */
    static final long MIN_AVERAGE_BYTES = 64 * 1024;

    /** @param holder the daemon that has the pages in memory, if other nodes can reach it */
    public record HotHandle(PlannedHandle handle, Optional<Home> holder) {}

    /**
     * @param rest the attempts that no handle covers
     * @param asked runs of the daemons that know none of the rest
     * @param requests how many daemons were queried
     */
    public record Plan(
            List<HotHandle> handles, Map<Integer, Integer> rest, Set<String> asked, int requests)
    {
        public Plan
        {
            handles = ImmutableList.copyOf(handles);
            rest = ImmutableMap.copyOf(rest);
            asked = ImmutableSet.copyOf(asked);
        }
    }

    /**
     * What a plan is for.
     *
     * @param homes the homes that sinks of each block of tasks were given
     */
    public record Request(
            DescribedExchange exchange,
            boolean ordered,
            Map<Integer, Integer> attempts,
            Map<Integer, Set<Home>> homes,
            long targetSize)
    {
        public Request
        {
            attempts = ImmutableMap.copyOf(attempts);
            homes = ImmutableMap.copyOf(homes);
        }
    }

    /** @param asked the attempts for which the daemon was queried */
    private record Answer(Daemon daemon, Map<Integer, Integer> asked, PlanFromMemory plan)
    {
        Set<Integer> known()
        {
            return Sets.difference(asked.keySet(), plan.unknown());
        }

        Set<Integer> unknown()
        {
            return Sets.intersection(asked.keySet(), plan.unknown());
        }
    }

    /** A plan in progress. */
    private static final class Progress
    {
        private final Map<Integer, Integer> rest;
        private final List<HotHandle> handles = new ArrayList<>();
        /** The tasks of whose attempt each daemon that has answered knows nothing. */
        private final Map<Daemon, Set<Integer>> unknown = new HashMap<>();
        private int requests;

        private Progress(Map<Integer, Integer> attempts)
        {
            this.rest = new TreeMap<>(attempts);
        }

        private boolean knowsNoneOf(Daemon daemon, Set<Integer> tasks)
        {
            return unknown.getOrDefault(daemon, Set.of()).containsAll(tasks);
        }
    }

    private final DaemonClient client;
    private final DaemonFailover failover;
    private final Fleet fleet;
    private final Homes homes;

    @Inject
    public HandlePlanner(DaemonClient client, DaemonFailover failover, Fleet fleet, Homes homes)
    {
        this.client = requireNonNull(client, "client is null");
        this.failover = requireNonNull(failover, "failover is null");
        this.fleet = requireNonNull(fleet, "fleet is null");
        this.homes = requireNonNull(homes, "homes is null");
    }

    /** Ends within a few seconds, whatever the daemons do. */
    public Plan planFromMemory(Request request)
    {
        Progress progress = new Progress(request.attempts());
        List<Answer> ofHomes = askAll(request, attemptsByHome(request));
        combine(request, ofHomes, progress);

        Map<Integer, Integer> others = new TreeMap<>(progress.rest);
        if (!request.ordered()) {
            ofHomes.forEach(answer -> others.keySet().removeAll(answer.known()));
        }
        if (!others.isEmpty()) {
            Map<Daemon, Map<Integer, Integer>> queries = new LinkedHashMap<>();
            failover.daemons().rotation().in().stream()
                    .filter(daemon -> !progress.knowsNoneOf(daemon, others.keySet()))
                    .forEach(daemon -> queries.put(daemon, others));
            combine(request, askAll(request, queries), progress);
        }
        Set<String> asked = progress.unknown.keySet().stream()
                .filter(daemon -> progress.knowsNoneOf(daemon, progress.rest.keySet()))
                .flatMap(daemon -> fleet.run(daemon).stream())
                .collect(toImmutableSet());
        return new Plan(progress.handles, progress.rest, asked, progress.requests);
    }

    private Map<Daemon, Map<Integer, Integer>> attemptsByHome(Request request)
    {
        Map<Daemon, Map<Integer, Integer>> attempts = new LinkedHashMap<>();
        request.attempts().forEach((task, attempt) ->
                request.homes().getOrDefault(Homes.block(task), Set.of()).stream()
                        .flatMap(home -> fleet.find(home).stream())
                        .filter(failover.daemons()::isInRotation)
                        .forEach(daemon -> attempts
                                .computeIfAbsent(daemon, _ -> new TreeMap<>())
                                .put(task, attempt)));
        return attempts;
    }

    /** Queries daemons, all at once; returns the answers, the most complete first. */
    private List<Answer> askAll(Request request, Map<Daemon, Map<Integer, Integer>> queries)
    {
        List<CompletableFuture<Optional<Answer>>> asked = new ArrayList<>();
        queries.forEach((daemon, attempts) -> {
            CompletableFuture<Optional<Answer>> answer = new CompletableFuture<>();
            Thread.ofVirtual().name("stopover-plan").start(Context.current().wrap(() -> {
                try {
                    answer.complete(ask(daemon, request, attempts));
                }
                catch (Throwable t) {
                    log.warn(t, "Cannot plan from the memory of %s", daemon);
                    answer.complete(Optional.empty());
                }
            }));
            asked.add(answer);
        });
        return asked.stream()
                .flatMap(answer -> answer.join().stream())
                .sorted(Comparator.comparingInt(answer -> answer.plan().unknown().size()))
                .toList();
    }

    private Optional<Answer> ask(Daemon daemon, Request request, Map<Integer, Integer> attempts)
    {
        try {
            return failover.once(daemon, _ -> request(daemon, request, attempts))
                    .map(plan -> new Answer(daemon, attempts, plan));
        }
        catch (IOException e) {
            log.debug(e, "Cannot plan from the memory of %s", daemon);
            return Optional.empty();
        }
    }

    /** Empty if the daemon refuses: then it cannot plan from memory, as before an upgrade. */
    private Optional<PlanFromMemory> request(
            Daemon daemon, Request request, Map<Integer, Integer> attempts)
            throws IOException
    {
        try {
            return Optional.of(client.handlesFromMemory(
                    daemon,
                    request.exchange(),
                    attempts,
                    request.targetSize(),
                    fleet.handleVersion(),
                    new Cancellation()));
        }
        catch (ProblemException e) {
            if (FailureKind.of(e) != FailureKind.REJECTED) {
                throw e;
            }
            log.debug(e, "%s does not plan from memory", daemon);
            return Optional.empty();
        }
    }

    /**
     * Uses only one daemon for each attempt. An attempt that was committed at two daemons is in the
     * handles of both: the second one is queried again without the attempts of the first one.
     */
    private void combine(Request request, List<Answer> answers, Progress progress)
    {
        Map<Integer, Integer> rest = progress.rest;
        progress.requests += answers.size();
        for (Answer first : answers) {
            progress.unknown.computeIfAbsent(first.daemon(), _ -> new HashSet<>())
                    .addAll(first.unknown());
            Answer answer = first;
            if (!rest.keySet().containsAll(answer.known())) {
                Map<Integer, Integer> again = new TreeMap<>(rest);
                again.keySet().retainAll(answer.known());
                if (again.isEmpty()) {
                    continue;
                }
                progress.requests++;
                Optional<Answer> second = ask(answer.daemon(), request, again);
                if (second.isEmpty()) {
                    continue;
                }
                answer = second.get();
            }
            if (answer.known().isEmpty()
                    || !isWorthIt(request, answer, progress.handles.isEmpty())) {
                continue;
            }
            Optional<Home> holder = homes.describe(answer.daemon());
            answer.plan().handles().forEach(
                    handle -> progress.handles.add(new HotHandle(handle, holder)));
            rest.keySet().removeAll(answer.known());
        }
    }

    /** The runs of the daemons that {@link #planFromMemory} will ask, except one. */
    public Set<String> askedBesides(Daemon daemon)
    {
        return failover.daemons().rotation().in().stream()
                .filter(other -> !other.equals(daemon))
                .flatMap(other -> fleet.run(other).stream())
                .collect(toImmutableSet());
    }

    private static boolean isWorthIt(Request request, Answer answer, boolean first)
    {
        if (request.ordered()) {
            // each partition of an ordered exchange is one handle
            return answer.known().containsAll(request.attempts().keySet());
        }
        return first || answer.plan().averageBytes() >= MIN_AVERAGE_BYTES;
    }
}
