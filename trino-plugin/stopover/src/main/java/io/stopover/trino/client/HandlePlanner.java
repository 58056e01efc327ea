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
 * without a request to the base directories: all daemons are queried at once. The other attempts
 * are left to an ordinary plan; all of them, if the daemons do not answer.
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

    /** What a plan is for. */
    public record Request(
            DescribedExchange exchange,
            boolean ordered,
            Map<Integer, Integer> attempts,
            long targetSize)
    {
        public Request
        {
            attempts = ImmutableMap.copyOf(attempts);
        }
    }

    private record Answer(Daemon daemon, PlanFromMemory plan)
    {
        Set<Integer> known(Set<Integer> tasks)
        {
            return ImmutableSet.copyOf(Sets.difference(tasks, plan.unknown()));
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
        List<CompletableFuture<Optional<Answer>>> asked = new ArrayList<>();
        for (Daemon daemon : failover.daemons().rotation().in()) {
            CompletableFuture<Optional<Answer>> answer = new CompletableFuture<>();
            Thread.ofVirtual().name("stopover-plan").start(Context.current().wrap(() -> {
                try {
                    answer.complete(ask(daemon, request, request.attempts()));
                }
                catch (Throwable t) {
                    log.warn(t, "Cannot plan from the memory of %s", daemon);
                    answer.complete(Optional.empty());
                }
            }));
            asked.add(answer);
        }
        List<Answer> answers = asked.stream()
                .flatMap(answer -> answer.join().stream())
                .sorted(Comparator.comparingInt(answer -> answer.plan().unknown().size()))
                .toList();
        return combine(request, answers);
    }

    private Optional<Answer> ask(Daemon daemon, Request request, Map<Integer, Integer> attempts)
    {
        try {
            return failover.once(daemon, _ -> request(daemon, request, attempts))
                    .map(plan -> new Answer(daemon, plan));
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
    private Plan combine(Request request, List<Answer> answers)
    {
        Map<Integer, Integer> rest = new TreeMap<>(request.attempts());
        List<HotHandle> handles = new ArrayList<>();
        int requests = answers.size();
        for (Answer first : answers) {
            Answer answer = first;
            Set<Integer> known = answer.known(request.attempts().keySet());
            if (!rest.keySet().containsAll(known)) {
                if (Sets.intersection(rest.keySet(), known).isEmpty()) {
                    continue;
                }
                requests++;
                Optional<Answer> again = ask(answer.daemon(), request, Map.copyOf(rest));
                if (again.isEmpty()) {
                    continue;
                }
                answer = again.get();
                known = answer.known(rest.keySet());
            }
            if (known.isEmpty() || !isWorthIt(request, answer.plan(), handles.isEmpty())) {
                continue;
            }
            Optional<Home> holder = homes.describe(answer.daemon());
            answer.plan().handles().forEach(handle -> handles.add(new HotHandle(handle, holder)));
            rest.keySet().removeAll(known);
        }
        Set<String> asked = answers.stream()
                .filter(answer -> Sets.intersection(
                        rest.keySet(), answer.known(request.attempts().keySet())).isEmpty())
                .flatMap(answer -> fleet.run(answer.daemon()).stream())
                .collect(toImmutableSet());
        return new Plan(handles, rest, asked, requests);
    }

    /** The runs of the daemons that {@link #planFromMemory} will ask, except one. */
    public Set<String> askedBesides(Daemon daemon)
    {
        return failover.daemons().rotation().in().stream()
                .filter(other -> !other.equals(daemon))
                .flatMap(other -> fleet.run(other).stream())
                .collect(toImmutableSet());
    }

    private static boolean isWorthIt(Request request, PlanFromMemory plan, boolean first)
    {
        if (request.ordered()) {
            // each partition of an ordered exchange is one handle
            return plan.unknown().isEmpty();
        }
        return first || plan.averageBytes() >= MIN_AVERAGE_BYTES;
    }
}
