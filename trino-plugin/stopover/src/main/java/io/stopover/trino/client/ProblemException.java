package io.stopover.trino.client;

import java.io.IOException;
import java.net.URI;

import static java.util.Objects.requireNonNull;

/** A daemon answered that it cannot do what was asked. */
public final class ProblemException
        extends IOException
{
    private final transient Problem problem;

    public ProblemException(URI daemon, Problem problem)
    {
        super("%s: %s (%s, status %s). %s".formatted(
                daemon, problem.title(), problem.slug(), problem.status(), problem.detail()));
        this.problem = requireNonNull(problem, "problem is null");
    }

    public Problem problem()
    {
        return problem;
    }
}
