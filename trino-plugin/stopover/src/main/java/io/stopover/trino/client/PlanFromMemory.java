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
import com.google.common.collect.ImmutableSet;

import java.util.List;
import java.util.Set;

/**
 * What one daemon planned without a request to a base directory.
 *
 * @param unknown tasks whose attempt it did not commit or no longer has in memory; the handles
 * cover all others
 */
record PlanFromMemory(List<PlannedHandle> handles, Set<Integer> unknown)
{
    PlanFromMemory
    {
        handles = ImmutableList.copyOf(handles);
        unknown = ImmutableSet.copyOf(unknown);
    }

    /** Page bytes that a handle covers on average. */
    long averageBytes()
    {
        return handles.isEmpty()
                ? Long.MAX_VALUE
                : handles.stream().mapToLong(PlannedHandle::bytes).sum() / handles.size();
    }
}
